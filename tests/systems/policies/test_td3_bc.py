"""TD3+BC: smoothed, clipped targets; delayed actor; a Q term scaled by its own size."""

from typing import Any

import pytest
import torch

from ornstein.envs.toy import CORNERS
from ornstein.fit import Run
from ornstein.noise import draw, generator
from ornstein.systems.policies.td3_bc import SYSTEM, TD3BC, Config
from ornstein.types import Average, Descend, Spaces, Transitions


def agent(**changes: float) -> TD3BC:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TD3BC(Config(width=16, **changes), Spaces(obs=3, act=2))


def batch(rows: int = 8) -> Transitions:
    g = generator("batch")
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    action = normal(rows, 2).clamp(-1, 1)
    return Transitions(
        normal(rows, 3), action, normal(rows), normal(rows, 3), torch.zeros(rows), torch.full((rows,), 0.9)
    )


def test_the_critic_target_is_smoothed_by_clipped_noise_and_pessimistic():
    a, b = agent(), batch()
    noise = {"action": 10 * draw({"x": a.phases()[0].noise["action"]}, 8, generator("n"))["x"]}
    with torch.no_grad():
        loss, _ = a.critic_loss(b, noise)
        smooth = (0.2 * noise["action"]).clamp(-0.5, 0.5)
        action = (a.actor_target(b.next_obs) + smooth).clamp(-1, 1)
        target = b.reward + 0.9 * a.critics_target(b.next_obs, action).min(0).values
        expected = sum(((a.critics(b.obs, b.action)[i] - target) ** 2).mean() for i in range(2))
    torch.testing.assert_close(loss, expected)


def test_the_actor_loss_is_cloning_minus_the_scaled_first_critic():
    a, b = agent(), batch()
    with torch.no_grad():
        action = a.actor(b.obs)
        q = a.critics(b.obs, action)[0]
        expected = ((action - b.action) ** 2).mean() - 2.5 * q.mean() / q.abs().mean()
        torch.testing.assert_close(a.actor_loss(b, {})[0], expected)


def test_without_the_q_term_only_cloning_is_left():
    a, b = agent(q_weight=0.0), batch()
    with torch.no_grad():
        torch.testing.assert_close(a.actor_loss(b, {})[0], ((a.actor(b.obs) - b.action) ** 2).mean())


def test_actor_and_targets_move_at_every_second_update_only():
    delayed = [p.every for p in agent().phases() if isinstance(p, Average) or p.name == "actor"]
    assert delayed == [2, 2, 2]
    (critic,) = [p for p in agent().phases() if isinstance(p, Descend) and p.name == "critic"]
    assert critic.every == 1


def test_observations_are_standardised():
    a = agent()
    a.inputs.fit(torch.tensor([[0.0, 0.0, 0.0], [2.0, 4.0, 8.0]]))
    seen: list[torch.Tensor] = []
    a.actor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    a.act(torch.tensor([[2.0, 4.0, 8.0]]), (), {})
    torch.testing.assert_close(seen[0], torch.ones(1, 3), atol=1e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("q_weight", [1.0, 0.0])
def test_on_four_corners_the_q_term_moves_the_actor_from_the_middle_towards_the_best(q_weight):
    from recipes.bandit import data

    a: Any = SYSTEM.run(
        Config(q_weight=q_weight, width=64, lr=3e-3), data(rows=2000), Run(None, steps=300, quiet=True)
    )[0]
    with torch.no_grad():
        action = a.act(torch.zeros(1, 1), (), {})[0][0]
    towards = action * torch.tensor(CORNERS[3]).sign()
    assert bool((towards > 0.3).all()) if q_weight else float(action.norm()) < 0.15
