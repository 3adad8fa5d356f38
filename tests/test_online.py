"""Learning while acting: what is stored, exact resumption, and a task that must be learned."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ornstein import checkpoint
from ornstein.data.collect import collect
from ornstein.data.replay import Replay
from ornstein.envs.make import make
from ornstein.evaluate import evaluate
from ornstein.fit import Run
from ornstein.noise import generator
from ornstein.online import Experience, Online, train_online
from ornstein.systems.planners import diffuser
from ornstein.systems.policies import diffusion_cloning, diffusion_ql, fdedge, fql, iql, sac, sfbc
from ornstein.systems.synthesizers import synther
from ornstein.types import Growing, Spaces, Transitions

SMALL = replace(sac.BASE, width=16, batch_size=8)


class Counter:
    """The observation counts the steps of an episode of three, which ends by itself, or of five, cut by a limit."""

    def __init__(self, terminal: bool = True) -> None:
        from gymnasium.spaces import Box

        self.observation_space = Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = Box(np.array([0.0]), np.array([10.0]), dtype=np.float64)
        self.terminal, self.spec, self.episode = terminal, None, -1

    @property
    def unwrapped(self) -> "Counter":
        return self

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.step_number, self.episode = 0, self.episode + 1
        return np.array([100.0 * self.episode]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.step_number += 1
        over = self.step_number == (3 if self.terminal else 5)
        obs = np.array([100.0 * self.episode + self.step_number])
        return obs, float(action[0]), over and self.terminal, over and not self.terminal, {}

    def close(self) -> None:
        pass


def experience(online: Online, terminal: bool = True) -> Experience:
    return Experience(lambda: Counter(terminal), online, seed=0, discount=0.9)


def learner() -> sac.SAC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return sac.SAC(SMALL, Spaces(obs=1, act=1, action_low=(0.0,), action_high=(10.0,)))


def test_steps_are_stored_in_the_environments_units_and_never_cross_an_episode():
    data = experience(Online(warmup=6, per_update=2))
    assert isinstance(data, Growing)
    data.grow(learner())
    assert len(data) == 8
    batch = data.gather(torch.arange(8))
    assert batch.obs.flatten().tolist() == [0, 1, 2, 100, 101, 102, 200, 201]
    assert batch.next_obs.flatten().tolist() == [1, 2, 3, 101, 102, 103, 201, 202]
    assert batch.terminal.tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    torch.testing.assert_close(batch.reward, batch.action[:, 0])
    assert batch.action.min() >= 0 and batch.action.max() <= 10 and batch.action.std() > 1
    assert batch.discount.tolist() == pytest.approx([0.9] * 8)
    data.grow(learner())
    assert len(data) == 10  # the warm-up happens once


def test_a_time_limit_is_not_the_end():
    data = experience(Online(warmup=5), terminal=False)
    data.grow(learner())
    batch = data.gather(torch.arange(6))
    assert batch.terminal.sum() == 0
    assert batch.obs.flatten().tolist() == [0, 1, 2, 3, 4, 100]
    assert batch.next_obs.flatten().tolist() == [1, 2, 3, 4, 5, 101]


def test_a_full_replay_forgets_the_oldest():
    replay = Replay(Spaces(obs=1, act=1), 3)
    x = torch.zeros(1)
    for i in range(5):
        replay.add(x + i, x, reward=float(i), next_obs=x, terminal=False)
    assert len(replay) == 3
    assert sorted(replay.gather(torch.arange(3)).reward.tolist()) == [2.0, 3.0, 4.0]
    other = Replay(Spaces(obs=1, act=1), 3)
    other.load_state(replay.state())
    assert torch.equal(other.gather(torch.arange(3)).obs, replay.gather(torch.arange(3)).obs)
    other.add(x, x, reward=9.0, next_obs=x, terminal=True)
    assert sorted(other.gather(torch.arange(3)).reward.tolist()) == [3.0, 4.0, 9.0]


def test_without_warm_up_there_is_something_to_learn_from_all_the_same():
    data = Experience(lambda: Counter(terminal=False), Online(warmup=0), seed=0, discount=0.5, n_step=3)
    data.grow(learner())
    assert len(data) == 1 and data.gather(torch.tensor([0])).next_obs.item() == 3


def test_several_steps_are_summed_within_their_episode():
    """The counter's rewards are its actions; episodes of three that end, and of five that are cut."""
    for terminal, length in ((True, 3), (False, 5)):
        data = Experience(lambda t=terminal: Counter(t), Online(warmup=20), seed=0, discount=0.5, n_step=3)
        data.grow(learner())
        single = Experience(lambda t=terminal: Counter(t), Online(warmup=20), seed=0, discount=0.5)
        single.grow(learner())
        whole = 15  # the actions of the warm-up
        batch, plain = data.gather(torch.arange(whole)), single.gather(torch.arange(whole))
        assert torch.equal(batch.obs, plain.obs) and torch.equal(batch.action, plain.action)
        for i in range(whole):
            taken = min(3, length - i % length)
            rewards = plain.reward[i : i + taken]
            assert batch.reward[i].item() == pytest.approx(sum(0.5**k * float(r) for k, r in enumerate(rewards)))
            assert batch.discount[i].item() == 0.5**taken
            assert batch.next_obs[i].item() == plain.next_obs[i + taken - 1].item()
            assert batch.terminal[i].item() == plain.terminal[i + taken - 1].item()


class Remembering(torch.nn.Linear):
    """Counts its acts over episodes, and notes the count."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.noise: dict[str, Any] = {}

    def start(self, n: int) -> tuple[torch.Tensor]:
        return (torch.zeros(n, 1),)

    def renew(self, carry: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (carry[0] + 100,)

    def note(self, obs: torch.Tensor, carry: tuple[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"visits": carry[0]}

    def act(self, obs: torch.Tensor, carry: tuple[torch.Tensor], noise: Any) -> tuple[torch.Tensor, Any]:
        carry[0].add_(1)  # in place, as a careless memory would be
        return torch.full((1, 1), 5.0), carry


def test_memory_outlives_episodes_and_copies_of_it_are_stored():
    data = experience(Online(warmup=0))
    agent = Remembering()
    for _ in range(7):
        data.grow(agent)
    batch = data.gather(torch.arange(7))
    assert batch._fields[:6] == Transitions._fields and batch._fields[6:] == ("visits", "next_visits")
    assert batch.visits.flatten().tolist() == [0, 1, 2, 103, 104, 105, 206]
    assert batch.next_visits.flatten().tolist() == [1, 2, 3, 104, 105, 106, 207]
    state = data.state()  # ends the running episode
    again = experience(Online(warmup=0))
    again.load_state(state)
    for one in (data, again):
        one.grow(agent)
        assert one.gather(torch.tensor([7])).visits.item() == 307
    with pytest.raises(ValueError, match="columns"):
        data.grow(learner())
    evaluated: list[float] = []

    class Noting(Remembering):
        def act(self, obs: torch.Tensor, carry: tuple[torch.Tensor], noise: Any) -> tuple[torch.Tensor, Any]:
            evaluated.append(carry[0].item())
            return super().act(obs, carry, noise)

    evaluate(Noting(), Counter, episodes=2, n_envs=1)
    assert evaluated == [0, 1, 2, 103, 104, 105]


def test_exploring_is_a_draw_and_noise_spreads_it():
    class Still(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.noise: dict[str, Any] = {}

        def start(self, n: int) -> tuple[()]:
            return ()

        def act(self, obs, carry, noise):
            return torch.full((1, 1), 5.0), carry

    plain, noisy = experience(Online(warmup=0)), experience(Online(warmup=0, explore_std=0.1))
    for data in (plain, noisy):
        for _ in range(200):
            data.grow(Still())
    assert plain.gather(torch.arange(200)).action.unique().tolist() == [5.0]
    assert noisy.gather(torch.arange(200)).action.std().item() == pytest.approx(0.5, abs=0.1)  # 0.1 of half of [0, 10]
    drawn, agent = experience(Online(warmup=0)), learner()
    for _ in range(50):
        drawn.grow(agent)
    assert drawn.gather(torch.arange(50)).action.std() > 0.5


def run(directory: Path | None, steps: int, **options: Any) -> Run:
    return Run(directory, steps=steps, checkpoint_every=10, log_every=10, quiet=True, **options)


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path):
    online, make_env = Online(warmup=12), lambda: make("Pendulum-v1", max_episode_steps=7)
    train_online(sac.SYSTEM, SMALL, make_env, run(tmp_path / "whole", 30), online=online)

    def stop(agent: Any) -> float:
        stop.calls += 1  # type: ignore[attr-defined]
        if stop.calls == 2:  # type: ignore[attr-defined]
            raise SystemExit("the power is cut")
        return 0.0

    stop.calls = 0  # type: ignore[attr-defined]
    with pytest.raises(SystemExit):
        train_online(sac.SYSTEM, SMALL, make_env, run(tmp_path / "cut", 30, score=stop), online=online)
    assert checkpoint.steps(tmp_path / "cut") == [10]
    train_online(sac.SYSTEM, SMALL, make_env, run(tmp_path / "cut", 30, resume=True), online=online)
    ends = [checkpoint.read(tmp_path / name).weights for name in ("whole", "cut")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_any_policy_with_phases_learns_and_recorded_episodes_can_come_first(tmp_path):
    env = make("Pendulum-v1", max_episode_steps=20)
    prior = collect(env, lambda obs: env.action_space.sample(), steps=40)
    config = replace(diffusion_ql.PRESETS["fast"], width=16, batch_size=8, candidates=4)
    config = replace(config, n_step=5)
    agent = train_online(
        diffusion_ql.SYSTEM, config, "Pendulum-v1", run(tmp_path / "ql", 10), online=Online(warmup=0), prior=prior
    )
    state = checkpoint.read(tmp_path / "ql")
    assert not agent.training
    assert state.config["data"]["prior"] == prior.hash


def test_a_policy_that_learned_from_standardised_records_goes_on_with_the_same_observations(tmp_path):
    env = make("Pendulum-v1", max_episode_steps=20)
    prior = collect(env, lambda obs: env.action_space.sample(), steps=60)
    config = replace(fql.PRESETS["replay-cpu"], width=16, batch_size=8, n_step=1, steps=2)
    offline: Any = fql.SYSTEM.run(config, prior, run(tmp_path / "offline", 2))[0]
    seen: list[Any] = []

    class Watching(fql.FQL):
        def critic_loss(self, batch: Any, noise: Any) -> Any:
            seen.append(batch)
            return super().critic_loss(batch, noise)

    system = replace(fql.SYSTEM, build=Watching)
    further: Any = train_online(
        system, config, "Pendulum-v1", run(tmp_path / "online", 2, init_from=tmp_path / "offline"),
        online=Online(warmup=0), prior=prior,
    )  # fmt: skip
    torch.testing.assert_close(further.inputs.std, prior.obs.std(0, correction=0))
    assert torch.equal(further.inputs.std, offline.inputs.std)
    rows = torch.cat([batch.obs for batch in seen])
    distance = (rows[:, None] - offline.inputs(prior.obs)).abs().amax(-1).amin(1)
    assert (distance < 1e-5).float().mean() > 0.7, "raw observations are elsewhere; the few that are new are too"
    once = Run(None, steps=1, quiet=True)
    fresh: Any = train_online(system, config, "Pendulum-v1", once, online=Online(warmup=8), prior=prior)
    torch.testing.assert_close(fresh.inputs.std, further.inputs.std)
    with pytest.raises(ValueError, match="standardize"):
        train_online(system, config, "Pendulum-v1", once, online=Online(warmup=8))


def test_recorded_and_new_rewards_are_changed_alike():
    env = make("Pendulum-v1", max_episode_steps=20)
    prior = collect(env, lambda obs: env.action_space.sample(), steps=60)
    config = replace(iql.PRESETS["bandit"], width=16, batch_size=8, steps=1)
    seen: list[Tensor] = []

    class Watching(iql.IQL):
        def critic_loss(self, batch: Any, noise: Any) -> Any:
            seen.append(batch.reward)
            return super().critic_loss(batch, noise)

    def rewards(name: Any, prior: Any) -> Tensor:
        seen.clear()
        system = replace(iql.SYSTEM, build=Watching)
        once = Run(None, steps=1, quiet=True)
        train_online(system, replace(config, reward=name), "Pendulum-v1", once, online=Online(warmup=20), prior=prior)
        return seen[0]

    plain = rewards("none", prior)
    torch.testing.assert_close(rewards("antmaze-cql", prior), 4 * plain - 2)
    spread = float(prior.returns.max() - prior.returns.min())
    torch.testing.assert_close(rewards("locomotion-iql", prior), 1000 / spread * plain)
    torch.testing.assert_close(rewards("antmaze-iql", None), rewards("none", None) - 1)
    with pytest.raises(ValueError, match="locomotion-iql"):
        rewards("locomotion-iql", None)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sfbc learns in stages"):
        train_online(sfbc.SYSTEM, replace(sfbc.PRESETS["replay-cpu"], width=16), "Pendulum-v1", Run(None, steps=1))
    with pytest.raises(ValueError, match="takes one"):
        train_online(sac.SYSTEM, SMALL, "Pendulum-v1", Run(None, seeds=(0, 1), steps=1))
    with pytest.raises(ValueError, match="n_step 0"):
        Replay(Spaces(obs=1, act=1), 3, n_step=0)
    with pytest.raises(ValueError, match="per_update"):
        Online(per_update=0)
    best = replace(diffusion_cloning.PRESETS["best-10-percent"], width=16)
    with pytest.raises(ValueError, match=r"best_share = 0.1 .* train with data, or set it to 1"):
        train_online(diffusion_cloning.SYSTEM, best, "Pendulum-v1", Run(None, steps=1))


def test_episodes_of_another_environment_are_refused_and_leave_nothing(tmp_path):
    """Sizes, and action bounds where the recording has some; one without is taken as it is."""
    where, online = Run(tmp_path / "run", steps=1, quiet=True), Online(warmup=0)
    other = collect(make("PointMass-v0"), lambda obs: np.zeros(2, np.float32), steps=20)
    with pytest.raises(ValueError, match=r"actions of size 2, but Pendulum-v1 has 3 and 1: give episodes of"):
        train_online(sac.SYSTEM, SMALL, "Pendulum-v1", where, online=online, prior=other)
    env = make("Pendulum-v1", max_episode_steps=20)
    prior = collect(env, lambda obs: env.action_space.sample(), steps=20)
    scaled = replace(prior, action_low=(-1.0,), action_high=(1.0,))
    with pytest.raises(ValueError, match=r"from \[-1.0\] to \[1.0\], but Pendulum-v1 has \[-2.0\] to \[2.0\]"):
        train_online(sac.SYSTEM, SMALL, "Pendulum-v1", where, online=online, prior=scaled)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="20 recorded steps, but the replay holds 19"):
        train_online(sac.SYSTEM, SMALL, "Pendulum-v1", where, online=Online(warmup=0, capacity=19), prior=prior)
    unbounded = replace(prior, action_low=(), action_high=())
    train_online(sac.SYSTEM, SMALL, "Pendulum-v1", where, online=online, prior=unbounded)


def test_who_cannot_learn_from_a_replay_of_steps_is_refused(tmp_path):
    where = Run(tmp_path / "run", steps=1, quiet=True)
    planner = replace(diffuser.PRESETS["maze-fast"], task="return", horizon=8, width=16, multipliers=(1, 2))
    with pytest.raises(ValueError, match=r"diffuser plans trajectories.*train it with data"):
        train_online(diffuser.SYSTEM, planner, "Pendulum-v1", where)
    with pytest.raises(ValueError, match=r"synther does not act.*train it with data"):
        train_online(synther.SYSTEM, synther.SYSTEM.preset(), "Pendulum-v1", where)
    with pytest.raises(ValueError, match=r"validation = 0.2.*holds no episodes out"):
        train_online(sac.SYSTEM, SMALL, "Pendulum-v1", replace(where, validation=0.2))
    assert not (tmp_path / "run").exists()


def test_the_environment_is_closed_at_the_end_and_after_an_error():
    closed: list[int] = []

    class Closing(Counter):
        def close(self) -> None:
            closed.append(1)

    once = Run(None, steps=1, quiet=True)
    train_online(sac.SYSTEM, SMALL, Closing, once, online=Online(warmup=10))
    assert len(closed) == 1
    with pytest.raises(ValueError, match="does not act"):
        train_online(synther.SYSTEM, synther.SYSTEM.preset(), Closing, once)
    assert len(closed) == 2


def test_what_a_learner_notes_is_not_in_recorded_episodes():
    name = "EdgeQueues-v0?indexed=true&slots=1"
    env = make(name)
    prior = collect(env, lambda obs: env.action_space.sample(), steps=20)
    config = fdedge.Config(width=16, batch_size=8, slots=1, places=100)
    once, online = Run(None, steps=1, quiet=True), Online(warmup=0)
    with pytest.raises(ValueError, match=r"fdedge learns from what it notes of its memory \(start\).*leave the record"):
        train_online(fdedge.SYSTEM, config, name, once, online=online, prior=prior)
    plain = replace(config, feedback=False)  # notes nothing
    train_online(fdedge.SYSTEM, plain, name, once, online=online, prior=prior)


def test_recorded_steps_count_towards_the_warm_up():
    env = make("Pendulum-v1", max_episode_steps=20)
    prior = collect(env, lambda obs: env.action_space.sample(), steps=40)
    made: list[Any] = []

    class Counted(sac.SAC):
        def explore(self, obs: Any, carry: Any, noise: Any) -> Any:
            made.append(obs)
            return super().explore(obs, carry, noise)

    system = replace(sac.SYSTEM, build=Counted)
    once = Run(None, steps=3, quiet=True)
    train_online(system, SMALL, "Pendulum-v1", once, online=Online(warmup=40), prior=prior)
    assert len(made) == 3
    assert "count towards" in (Online.__doc__ or "")


def test_the_squashed_density_is_that_of_torch():
    from torch.distributions import Normal, TanhTransform, TransformedDistribution

    actor = learner().actor
    obs = torch.randn(20, 1, generator=generator("obs"))
    normal = torch.randn(20, 1, generator=generator("normal"))
    mean, log_std = actor.body(obs).chunk(2, -1)
    law = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    action, log_prob = actor.sample(obs, normal)
    torch.testing.assert_close(log_prob, law.log_prob(action).sum(-1), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(action, torch.tanh(mean + log_std.exp() * normal))


def test_the_temperature_rises_while_the_entropy_is_too_low():
    agent = learner()
    with torch.no_grad():
        for p in agent.actor.body.parameters():
            p.zero_()
        agent.actor.body.body[-1].bias[1] = -4.0  # pyright: ignore  # a narrow law: an entropy far below -1
    batch = Experience(Counter, Online(warmup=8), seed=0, discount=0.9)
    batch.grow(agent)
    loss, _ = agent.temperature_loss(batch.gather(torch.arange(8)), {"action": torch.zeros(8, 1)})
    (slope,) = torch.autograd.grad(loss, [agent.temperature.log])
    assert slope.item() < 0


@pytest.mark.slow
def test_sac_swings_the_pendulum_up():
    torch.set_num_threads(1)
    agent: Any = train_online(
        sac.SYSTEM, sac.PRESETS["pendulum"], "Pendulum-v1", Run(None, steps=8_000), online=Online(warmup=1_000)
    )
    assert np.mean(evaluate(agent, "Pendulum-v1", episodes=20, seed=1).returns) > -250
