"""What makes QVPO what it is: its best samples, weighted by how much better they are, and uniform actions."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ornstein.fit import Run, fit
from ornstein.noise import draw, generator
from ornstein.rl.critic import Critics
from ornstein.rl.weight import positive_weight
from ornstein.systems.policies.qvpo import BASE, QVPO, Config
from ornstein.types import Descend, Spaces
from toys import phase_noise, steps_of

SPACES = Spaces(obs=3, act=2)
SMALL = replace(BASE, width=16, samples=6, uniform=3, explored=4, candidates=5, diffusion_steps=4)


def agent(config: Config = SMALL) -> QVPO:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return QVPO(config, SPACES)


def test_the_loss_is_the_weighted_denoising_error_of_the_best_sample_and_of_uniform_actions():
    a, b = agent(), steps_of(8)
    noise = phase_noise(a, "actor", 8)
    with torch.no_grad():
        samples = a.actor.candidates(b.obs, noise)
        wanted = 0.0
        for row in range(8):
            q = a.critics(b.obs[row].expand(6, -1), samples[row]).min(0).values
            weight = float((q.max() - q.mean()).clamp_min(0))
            actions = torch.cat([samples[row, q.argmax()][None], 2 * noise["uniform"][row] - 1])
            drawn = {"t": noise["t"][row], "eps": noise["eps"][row]}
            error = a.actor.cloning(b.obs[row].expand(4, -1), actions, drawn).mean(1)
            wanted += weight * float(error[0] + 0.2 * error[1:].mean()) / 8
        assert float(a.actor_loss(b, noise)[0]) == pytest.approx(wanted, rel=1e-4)


def test_gradients_are_clipped_and_times_have_as_many_features_as_published():
    a = agent(BASE)
    assert [p.adam.clip for p in a.phases() if isinstance(p, Descend)] == [2.0, 2.0]
    assert a.actor.denoiser.network.time(torch.zeros(1)).shape == (1, 32)


class Flat(Critics):
    """Critics to whom all actions are alike."""

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.ones(2, *action.shape[:-1])


def test_where_no_sample_is_better_nothing_is_learned_unless_the_weight_is_taken_away():
    for weighted, learns in ((True, False), (False, True)):
        a = agent(replace(SMALL, weighted=weighted))
        a.critics = Flat(3, 2, width=4)
        loss = a.actor_loss(steps_of(8), phase_noise(a, "actor", 8))[0]
        assert bool(loss > 0) == learns


def test_each_of_ten_uniform_actions_counts_a_fiftieth_of_the_kept_one_as_in_the_official_code():
    a, b = agent(replace(SMALL, uniform=BASE.uniform)), steps_of(8)
    noise = phase_noise(a, "actor", 8)
    with torch.no_grad():
        kept, weight = a.kept(b.obs, noise)
        share = torch.tensor([1.0] + [0.02] * 10)
        action = torch.cat((kept.unsqueeze(1), 2 * noise["uniform"] - 1), 1).flatten(0, 1)
        drawn = {"t": noise["t"].flatten(), "eps": noise["eps"].flatten(0, 1)}
        error = a.actor.cloning(b.obs.repeat_interleave(11, 0), action, drawn).mean(1).unflatten(0, (8, 11))
        one_mean = (weight.unsqueeze(1) * share * error).mean()
        torch.testing.assert_close(a.actor_loss(b, noise)[0], 11 * one_mean)


def test_uniform_actions_count_only_with_their_weight():
    losses = {}
    for entropy in (0.0, 1.0, 2.0):
        a = agent(replace(SMALL, entropy=entropy))
        losses[entropy] = float(a.actor_loss(steps_of(8), phase_noise(a, "actor", 8))[0].detach())
    assert losses[1.0] - losses[0.0] == pytest.approx(losses[2.0] - losses[1.0], rel=1e-3)
    assert losses[1.0] > losses[0.0]


def test_neither_the_chain_nor_the_critics_get_a_gradient_from_the_actor():
    a, b = agent(), steps_of(8)
    with_gradient: list[bool] = []
    a.actor.denoiser.network.body[-1].register_forward_hook(  # pyright: ignore
        lambda *_: with_gradient.append(torch.is_grad_enabled())
    )
    a.actor_loss(b, phase_noise(a, "actor", 8))[0].backward()
    assert with_gradient == [False] * 4 + [True]
    assert all(p.grad is None for p in a.critics.parameters())
    assert all(p.grad is not None for p in a.actor.parameters())


def test_targets_take_the_best_of_a_few_samples_of_the_averaged_actor():
    a, b = agent(), steps_of(8)
    noise = phase_noise(a, "critic", 8)
    with torch.no_grad():
        few = a.actor_ema.candidates(b.next_obs, noise)
        assert few.shape[1] == 4
        value = a.critics_target(b.next_obs.unsqueeze(1).expand(-1, 4, -1), few).min(0).values.max(1).values
        by_hand = sum((q - (b.reward + 0.99 * value)).square().mean() for q in a.critics(b.obs, b.action))
        torch.testing.assert_close(a.critic_loss(b, noise)[0], by_hand)


def test_acting_takes_the_best_of_more_samples_than_exploring():
    a, obs = agent(), steps_of(8).obs
    for spec, act, k in ((a.noise, a.act, 5), (a.explore_noise, a.explore, 4)):
        noise: Any = draw(spec, 8, generator("act"))
        with torch.no_grad():
            several = a.actor.candidates(obs, noise)
            value = a.critics(obs.unsqueeze(1).expand(-1, k, -1), several).min(0).values
            torch.testing.assert_close(act(obs, (), noise)[0], several[torch.arange(8), value.argmax(1)])


def test_the_weights_make_the_law_of_its_closed_form():
    """Bandit B: samples of N(0, 1) and Q = -2 (a - 0.3)^2, V = -2.18; the mean and deviation of the weighted law."""
    action = torch.special.ndtri((torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000)
    q = -2 * (action - 0.3).square()
    assert float(q.mean()) == pytest.approx(-2.18, abs=1e-4)
    weight = positive_weight(q.unsqueeze(0))[0]
    mean = float((weight * action).sum() / weight.sum())
    std = float(((weight * (action - mean).square()).sum() / weight.sum()).sqrt())
    assert (mean, std) == pytest.approx((0.24230, 0.43764), abs=2e-4)
    tilted = (2 * q).exp()  # another weight, another law
    assert float((tilted * action).sum() / tilted.sum()) != pytest.approx(mean, abs=1e-2)


class Informed(QVPO):
    """QVPO that knows its critics, so that only the actor is judged."""

    def phases(self) -> tuple[Any, ...]:
        return tuple(phase for phase in super().phases() if isinstance(phase, Descend) and phase.name == "actor")


@pytest.mark.slow
def test_on_bandit_a_the_best_of_64_leaves_the_lower_mode_and_uniform_actions_hold_the_box():
    """Bandit A: Q is the log of two Gaussians, 0.3 of the mass at -0.5; the policy's own samples, none selected."""
    from recipes.qsm import Actions, Mixture

    made = {}
    for entropy in (BASE.entropy, 20.0):
        config = replace(BASE, entropy=entropy, width=64, lr=1e-3, batch_size=8, steps=600)
        run = Run(None, quiet=True)
        agents: Any = run.build(lambda config=config: Informed(config, Spaces(obs=1, act=1)))
        agents[0].critics = Mixture()
        spec = agents[0].actor.needs()
        for moment in ("before", "after"):
            if moment == "after":
                fit(agents, Actions(torch.zeros(256)), steps=config.steps, batch_size=config.batch_size, run=run)
            with torch.no_grad():
                made[entropy, moment] = agents[0].actor(torch.zeros(5000, 1), draw(spec, 5000, generator("made")))[:, 0]
    left = {name: float((action < 0).float().mean()) for name, action in made.items()}
    assert left[BASE.entropy, "before"] > 0.3
    assert left[BASE.entropy, "after"] < 0.1
    assert float(made[BASE.entropy, "after"].mean()) == pytest.approx(0.5, abs=0.15)
    assert left[20.0, "after"] > 0.3  # the control arm: what holds a mode is the entropy term
    assert float(made[20.0, "after"].std()) > 2 * float(made[BASE.entropy, "after"].std())
