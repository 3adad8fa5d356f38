"""The parts that policies share, where no system's own test reaches."""

from dataclasses import replace

import pytest
import torch

from ornstein.actor import DiffusionActor, best_episodes, candidate_target, fit_transitions
from ornstein.data.episodes import Episodes
from ornstein.diffusion.denoiser import Continuous
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import DiscreteVP, LinearVP, point
from ornstein.diffusion.solver import DDIM
from ornstein.fit import Run
from ornstein.nets.mlp import ConditionalMLP
from ornstein.noise import draw, generator
from ornstein.rl.critic import Critics, candidate_values, scaled_value
from ornstein.systems.policies import cpql, diffcps, diffusion_ql, edp, idql, iql, srdp
from ornstein.types import Transitions


def actor(**options: object) -> DiffusionActor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DiffusionActor(ConditionalMLP(2, 3, width=16), DiscreteVP(5), 2, **options)  # type: ignore[arg-type]


def test_candidates_are_single_actions_side_by_side():
    a, obs = actor(), torch.randn(4, 3, generator=generator("obs"))
    noise = draw(a.needs(6), 4, generator("candidates"))
    with torch.no_grad():
        many = a.candidates(obs, noise)
        for k in range(6):
            one = a(obs, {name: value[:, k] for name, value in noise.items()})
            torch.testing.assert_close(many[:, k], one, atol=1e-5, rtol=0)


def test_the_denoised_action_and_the_denoising_loss_come_from_one_call():
    a, g = actor(), generator("one call")
    obs, action = torch.randn(6, 3, generator=g), torch.rand(6, 2, generator=g) * 2 - 1
    noise, calls = draw(a.draws, 6, g), []
    a.denoiser.network.register_forward_hook(lambda *_: calls.append(1))  # pyright: ignore
    error, denoised = a.reconstructed(obs, action, noise)
    assert len(calls) == 1
    torch.testing.assert_close(error, a.cloning(obs, action, noise))
    x_t, level = a.noised(action, noise)
    torch.testing.assert_close(denoised, a.denoiser(x_t, level, obs))
    assert denoised.abs().max() <= 1.0


def test_the_iterate_is_held_where_a_constraint_says_so_and_the_denoised_action_where_a_bound_is():
    obs, wide = torch.zeros(64, 3), {"bound": None}
    noise = draw(actor().needs(), 64, generator("held"))
    with torch.no_grad():
        free = actor(**wide)(obs, noise)
        kept = actor(**wide, constrain=lambda x, level, noise: x.clamp(-0.1, 0.1))(obs, noise)
        bounded = actor()(obs, noise)
    assert free.abs().max() > 1.0
    assert kept.abs().max() <= 0.1
    assert bounded.abs().max() <= 1.0


def test_continuous_levels_begin_after_zero_and_need_a_grid():
    process = LinearVP()
    a = DiffusionActor(
        ConditionalMLP(2, 3, width=16),
        process,
        2,
        grid=uniform(process, 4, end=1e-3),
        solver=DDIM(),
        clock=Continuous(),
    )
    action = torch.zeros(2, 2)
    x_t, level = a.noised(action, {"t": torch.tensor([0.0, 0.5]), "eps": torch.ones(2, 2)})
    torch.testing.assert_close(level.t, torch.tensor([0.001, 0.5005]))
    torch.testing.assert_close(x_t, point(process, level.t, action).sigma.expand(2, 2))
    with pytest.raises(ValueError, match="give the grid"):
        DiffusionActor(ConditionalMLP(2, 3, width=16), process, 2)


def test_the_target_is_the_smaller_critic_of_the_best_candidate():
    a, critics = actor(), Critics(3, 2, width=8)
    g = generator("target")
    batch = Transitions(
        torch.randn(4, 3, generator=g), torch.zeros(4, 2), torch.tensor([1.0, 2.0, 3.0, 4.0]),
        torch.randn(4, 3, generator=g), torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.full((4,), 0.5),
    )  # fmt: skip
    noise = draw(a.needs(3), 4, g)
    q = candidate_values(critics, batch.next_obs, a.candidates(batch.next_obs, noise))
    expected = batch.reward + 0.5 * (1 - batch.terminal) * torch.minimum(q[0].max(1).values, q[1].max(1).values)
    target = candidate_target(critics, a, batch, noise)
    torch.testing.assert_close(target, expected.detach())
    assert not target.requires_grad


def test_values_are_scaled_by_the_other_critic():
    q = torch.tensor([[1.0, -3.0], [4.0, 6.0]], requires_grad=True)
    assert scaled_value(q, torch.tensor(0.49)).item() == pytest.approx(-1.0 / 5.0)
    assert scaled_value(q, torch.tensor(0.5)).item() == pytest.approx(5.0 / 2.0)
    (gradient,) = torch.autograd.grad(scaled_value(q, torch.tensor(0.0)), q)
    torch.testing.assert_close(gradient, torch.tensor([[0.1, 0.1], [0.0, 0.0]]))  # the divisor is a number


def test_the_best_episodes_are_those_of_highest_return():
    rewards = [torch.full((2,), r) for r in (0.0, 3.0, 1.0, 2.0)]
    data = Episodes.from_lists([torch.zeros(3, 1)] * 4, [torch.zeros(2, 1)] * 4, rewards, terminal=[True] * 4)
    assert sorted(best_episodes(data, 0.5).returns.tolist()) == [4.0, 6.0]
    assert best_episodes(data, 1.0) is data
    assert best_episodes(data, 0.01).n_episodes == 1


@pytest.mark.parametrize("module", [diffusion_ql, diffcps, srdp, cpql, edp, iql, idql], ids=lambda m: m.SYSTEM.name)
def test_rewards_are_changed_as_the_configuration_says(module):
    """Of every system that `fit_transitions` trains on rewards; the published presets for mazes do change them."""
    obs, reward = torch.zeros(20, 1), torch.arange(20.0)
    episodes = Episodes.from_transitions(
        obs, torch.zeros(20, 1), reward, next_obs=obs, terminal=reward >= 0,
        action_low=(-1.0,), action_high=(1.0,),
    )  # fmt: skip
    seen: list[torch.Tensor] = []

    class Watching(module.SYSTEM.build):  # type: ignore[name-defined]
        def critic_loss(self, batch, noise):
            seen.append(batch.reward)
            return super().critic_loss(batch, noise)

    config = replace(module.PRESETS["replay-cpu"], reward="antmaze-cql", width=16, n_step=1, batch_size=20, steps=1)
    fit_transitions(lambda e: Watching(config, e.spaces), config, episodes, Run(None, steps=1, quiet=True))
    assert set(seen[0].tolist()) <= set((4 * reward - 2).tolist())
    mazes = [preset for name, preset in module.PRESETS.items() if name.startswith("antmaze")]
    assert mazes
    assert all(preset.reward.startswith("antmaze-") for preset in mazes)
