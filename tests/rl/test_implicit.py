"""Values of the data's own actions: by hand, by what they are for, and what no gradient reaches."""

import math

import pytest
import torch

from nets.reference import normal
from ornstein.rl.critic import Critics, StateValues
from ornstein.rl.implicit import (
    advantage,
    asymmetric_loss,
    implicit_weight,
    in_sample_critic_loss,
    in_sample_value_loss,
)
from ornstein.types import Transitions

U = torch.tensor([2.0, -2.0, 0.0])


def batch(rows: int = 6) -> Transitions:
    terminal = torch.zeros(rows)
    terminal[0] = 1.0
    return Transitions(
        normal(rows, 3), normal(rows, 2), normal(rows), normal(rows, 3), terminal, torch.full((rows,), 0.9)
    )


def test_losses_by_hand():
    torch.testing.assert_close(asymmetric_loss(U, "expectile", level=0.9), torch.tensor([3.6, 0.4, 0.0]))
    torch.testing.assert_close(asymmetric_loss(U, "quantile", level=0.9), torch.tensor([1.8, 0.2, 0.0]))
    found = asymmetric_loss(U, "exponential", level=0.5)
    torch.testing.assert_close(found, torch.tensor([math.e - 1, math.exp(-1) + 1, 1.0]))


def test_the_exponential_loss_goes_on_as_its_tangent():
    u = torch.tensor([math.log(6.0), 3.0, 500.0], requires_grad=True)
    loss = asymmetric_loss(u, "exponential", level=1.0)
    (slope,) = torch.autograd.grad(loss.sum(), u)
    torch.testing.assert_close(slope, torch.full((3,), 5.0))
    assert loss[0].item() == pytest.approx(6 - math.log(6.0))


@pytest.mark.parametrize(("kind", "level"), [("expectile", 0.7), ("quantile", 0.8), ("exponential", 0.5)])
def test_weights_are_the_slopes_over_their_distances(kind, level):
    """The theorem's |f'(u)| / |u|, by automatic differentiation; expectiles are 2 level and 2 (1 - level), up to 2."""
    u = torch.tensor([-1.5, -0.3, 0.2, 1.1, 5.0, 200.0], requires_grad=True)
    (slope,) = torch.autograd.grad(asymmetric_loss(u, kind, level=level).sum(), u)
    expected = slope.abs() / u.detach().abs()
    weight = implicit_weight(u, kind, level=level)
    torch.testing.assert_close(weight / weight[0], expected / expected[0])
    assert not weight.requires_grad
    assert bool((weight > 0).all())


@pytest.mark.parametrize("kind", ["expectile", "quantile", "exponential"])
def test_weights_are_finite_at_no_advantage(kind):
    assert bool(torch.isfinite(implicit_weight(torch.zeros(2), kind, level=0.7)).all())


def test_the_value_follows_the_smaller_critic_and_the_critics_follow_the_value():
    values, critics, b = StateValues(3, width=8), Critics(3, 2, width=8), batch()
    q, v = critics(b.obs, b.action).detach(), values(b.obs)[0].detach()
    u = torch.minimum(q[0], q[1]) - v
    torch.testing.assert_close(advantage(values, critics, b).detach(), u)
    loss, _ = in_sample_value_loss(values, critics, b, level=0.9)
    torch.testing.assert_close(loss, (torch.where(u < 0, 0.1, 0.9) * u**2).mean())
    target = b.reward + 0.9 * (1 - b.terminal) * values(b.next_obs)[0].detach()
    loss, _ = in_sample_critic_loss(critics, values, b)
    torch.testing.assert_close(loss, ((q - target) ** 2).mean(1).sum())


def test_each_loss_reaches_its_own_network_only():
    values, critics, b = StateValues(3, width=8), Critics(3, 2, width=8), batch()
    in_sample_value_loss(values, critics, b, level=0.7)[0].backward()
    assert all(p.grad is None for p in critics.parameters())
    assert all(p.grad is not None for p in values.parameters())
    values.zero_grad()
    in_sample_critic_loss(critics, values, b)[0].backward()
    assert all(p.grad is None for p in values.parameters())
    assert all(p.grad is not None for p in critics.parameters())


def test_levels_and_kinds_are_checked():
    for kind, level in (("expectile", 1.0), ("quantile", 0.0), ("exponential", 0.0), ("median", 0.5)):
        with pytest.raises((ValueError, TypeError), match=r"must lie between|choose one of|Type"):
            asymmetric_loss(torch.zeros(1), kind, level=level)  # type: ignore[arg-type]
