"""Learning from rollouts: what is stored, in which order it is learned from, and exact resumption."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ornstein import checkpoint
from ornstein.cli import main
from ornstein.data.collect import collect
from ornstein.envs.make import make
from ornstein.fit import Run
from ornstein.rollout import Experience, train_on_policy
from ornstein.system import load
from ornstein.systems.policies import dppo, sac
from ornstein.types import Growing, Ordered, Rolled, Rollouts

SETTINGS = Rollouts(
    n_envs=2, n_steps=6, epochs=2, batch_size=4, steps=9, discount=0.5, trace=0.8, scale_rewards=False, target_kl=0.1
)
TINY = replace(
    dppo.PRESETS["pendulum"], n_envs=2, n_steps=8, epochs=2, tune_batch_size=4, tune_steps=30, width=8, critic_width=8,
    batch_size=8, steps=5, target_kl=1e-3, actor_lr=0.05,
)  # fmt: skip


class Steps:
    """The observation is 10 times the episode's number plus its steps, of which there are three: the second environment
    is cut there by a limit, the first one ends by itself. The reward is the action.
    """

    made = 0

    def __init__(self) -> None:
        from gymnasium.spaces import Box

        self.observation_space = Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = Box(np.array([0.0]), np.array([100.0]), dtype=np.float64)
        self.spec, self.episode, self.limited = None, -1, Steps.made % 2 == 1
        Steps.made += 1

    @property
    def unwrapped(self) -> "Steps":
        return self

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.count, self.episode = 0, self.episode + 1
        return np.array([10.0 * self.episode]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.count += 1
        over = self.count == 3
        return np.array([10.0 * self.episode + self.count]), float(action[0]), over and not self.limited, over, {}

    def close(self) -> None:
        pass


class Agent(torch.nn.Linear):
    """Acts by the observation plus one; its value is half the observation."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.roll_noise: dict[str, Any] = {}
        self.moved = 0.0

    def begin(self) -> None:
        pass

    def roll(self, obs: Tensor, noise: Any) -> tuple[Tensor, Tensor, Tensor]:
        assert not self.training
        return obs + 1, torch.stack((-obs, obs), 1), obs

    def value(self, obs: Tensor) -> Tensor:
        return obs[:, 0] / 2

    def drift(self, batch: Rolled) -> Tensor:
        return torch.tensor(self.moved)


def experience(**changes: Any) -> Experience:
    Steps.made = 0
    return Experience(Steps, replace(SETTINGS, **changes), seed=0)


def test_a_rollout_holds_its_steps_and_what_became_of_them():
    data, agent = experience(), Agent().train()
    assert isinstance(data, Growing) and isinstance(data, Ordered)
    data.grow(agent)
    assert agent.training and len(data) == 12 and data.made == 12
    batch = data.gather(torch.arange(12))
    seen = batch.obs.view(6, 2)
    assert seen[:, 0].tolist() == seen[:, 1].tolist() == [0, 1, 2, 10, 11, 12]
    torch.testing.assert_close(batch.path[:, 1], batch.obs)
    # rewards are obs + 1, the next observation is obs + 1: delta = obs + 1 + .5 (obs + 1) / 2 - obs / 2, at a true end
    # without the value of the next
    delta = seen + 1 + 0.25 * (seen + 1) - seen / 2
    delta[2::3, 0] -= 0.25 * (seen[2::3, 0] + 1)
    third = delta[2::3]
    second = delta[1::3] + 0.4 * third
    first = delta[0::3] + 0.4 * second
    expected = torch.stack((first, second, third), 1).flatten(0, 1)
    torch.testing.assert_close(batch.advantage.view(6, 2), expected)
    torch.testing.assert_close(batch.target, batch.advantage + batch.obs[:, 0] / 2)


def test_epochs_take_each_step_once_and_then_a_new_rollout_comes():
    data, agent = experience(), Agent()
    taken = []
    for update in range(7):
        data.grow(agent)
        assert data.made == (12 if update < 6 else 24)
        taken.append(data.choose(4))
    epochs = torch.stack(taken[:6]).view(2, 12)
    assert (epochs.sort(1).values == torch.arange(12)).all()
    assert not torch.equal(epochs[0], epochs[1])
    # the episodes go on: in the second rollout, the third ones begin
    assert data.gather(torch.arange(12)).obs.view(6, 2)[:, 0].tolist() == [20, 21, 22, 30, 31, 32]


def test_a_policy_that_has_drifted_ends_the_epochs():
    data, agent = experience(), Agent()
    agent.moved = 0.2
    data.grow(agent)
    data.choose(4)
    data.grow(agent)
    assert data.made == 24
    data.grow(agent)  # nothing was learned from this one yet: there is no drift to ask for
    assert data.made == 24
    tolerant = experience(target_kl=0.0)
    for _ in range(6):
        tolerant.grow(agent)
        tolerant.choose(4)
    assert tolerant.made == 12


def test_state_ends_the_episodes_and_puts_everything_back():
    data, agent = experience(n_steps=4, scale_rewards=True), Agent()
    data.grow(agent)
    data.choose(4)
    state = {name: tensor.clone() for name, tensor in data.state().items()}
    again = experience(n_steps=4, scale_rewards=True)
    again.load_state(state)
    for _ in range(4):
        data.grow(agent)
        again.grow(agent)
        assert torch.equal(data.choose(4), again.choose(4))
    assert data.made == again.made == 16
    ours, theirs = (each.gather(torch.arange(8)) for each in (data, again))
    assert ours.obs.view(4, 2)[:, 0].tolist() == [20, 21, 22, 30]  # the second episode was cut at its first step
    assert (ours.obs - theirs.obs).unique().tolist() == [20]  # fresh environments count from 0 again
    torch.testing.assert_close(data.scale.sums - again.scale.sums, torch.full((2,), 20.0, dtype=torch.float64))
    assert data.begun == again.begun


def run(directory: Path | None, **options: Any) -> Run:
    return Run(directory, quiet=True, **{"checkpoint_every": 7, "log_every": 7, **options})


def pendulum() -> Any:
    return make("Pendulum-v1", max_episode_steps=5)


def weights(directory: Path) -> dict[str, Tensor]:
    return checkpoint.read(directory).weights


@pytest.mark.parametrize("cut", [2, 4])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, cut):
    """Checkpoints at 7, 14, ... fall between epochs, of 8 updates a rollout or fewer, as the policy drifts."""
    prior = collect(pendulum(), lambda obs: np.array([np.sin(obs[2])], np.float32), steps=40)
    options: dict[str, Any] = {"prior": prior if cut == 4 else None}
    train_on_policy(dppo.SYSTEM, TINY, pendulum, run(tmp_path / "whole"), **options)
    calls = 0

    def stop(agent: Any) -> float:
        nonlocal calls
        calls += 1
        if calls == cut:
            raise SystemExit("the power is cut")
        return 0.0

    with pytest.raises(SystemExit):
        train_on_policy(dppo.SYSTEM, TINY, pendulum, run(tmp_path / "cut", score=stop), **options)
    train_on_policy(dppo.SYSTEM, TINY, pendulum, run(tmp_path / "cut", resume=True), **options)
    ours, theirs = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    state = checkpoint.read_tensors(checkpoint.locate(tmp_path / "whole") / "training_state.safetensors")
    assert state["data/counts"][2] > 64  # some rollouts were given up: else four of 16 steps would do for 30 updates


def test_episodes_come_first_as_a_stage_of_their_own(tmp_path):
    prior = collect(pendulum(), lambda obs: np.array([1.0], np.float32), steps=40)
    seen: list[tuple[str, int]] = []
    rare = {"checkpoint_every": 100}
    agent: Any = train_on_policy(
        dppo.SYSTEM,
        TINY,
        pendulum,
        run(tmp_path / "both", **rare, on_stage=lambda *a: seen.append((a[0], a[3]))),
        prior=prior,
    )
    assert seen == [("train", 8), ("rollouts", 4)]
    assert not agent.training
    first = weights(tmp_path / "both")
    cloned = dppo.SYSTEM.run(TINY, prior, run(tmp_path / "clone", **rare))[0].state_dict()
    assert torch.equal(cloned["base.denoiser.network.body.0.weight"], first["base.denoiser.network.body.0.weight"])
    assert not torch.equal(
        cloned["actor.denoiser.network.body.0.weight"], first["actor.denoiser.network.body.0.weight"]
    )
    train_on_policy(dppo.SYSTEM, TINY, pendulum, run(tmp_path / "from", init_from=tmp_path / "clone", **rare))
    assert all(torch.equal(first[name], other) for name, other in weights(tmp_path / "from").items())
    _, loaded = load(tmp_path / "both")
    assert torch.equal(loaded.critic.body.head.weight, agent.critic.body.head.weight)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="takes one"):
        train_on_policy(dppo.SYSTEM, TINY, pendulum, Run(None, seeds=(0, 1)))
    with pytest.raises(ValueError, match="has no rollouts"):
        train_on_policy(sac.SYSTEM, sac.BASE, pendulum, Run(None))
    other = collect(make("PointMass-v0"), lambda obs: np.zeros(2, np.float32), steps=20)
    with pytest.raises(ValueError, match="give some of its own"):
        train_on_policy(dppo.SYSTEM, TINY, pendulum, Run(None), prior=other)
    with pytest.raises(ValueError, match="do not divide into batches of 5"):
        replace(SETTINGS, batch_size=5)
    with pytest.raises(ValueError, match="at least 1"):
        replace(SETTINGS, epochs=0)


def test_the_command_line_learns_from_rollouts(tmp_path, capsys):
    sizes = ["--n-envs", "2", "--n-steps", "4", "--tune-batch-size", "4", "--width", "8", "--critic-width", "8"]
    words = ["train", "dppo", "--env", "Pendulum-v1", "--task", "pendulum", "--quiet", "--no-picture", *sizes]
    assert main([*words, "--steps", "3", "--out", str(tmp_path / "run")]) == 0
    assert load(tmp_path / "run")[0].name == "dppo"
    assert main([*words, "--warmup", "10", "--out", str(tmp_path / "other")]) == 2
    assert "without a replay" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
