"""Advantage weights and the expectile loss, by hand and by what they are for."""

import math

import pytest
import torch

from nets.reference import normal
from ornstein.rl.weight import expectile_loss, exponential_weight


def test_exponential_weights_by_hand():
    """exp(3 * (-1, 0, 0.5, 10)), the last clipped at 100."""
    weight = exponential_weight(torch.tensor([-1.0, 0.0, 0.5, 10.0]), temperature=3.0)
    torch.testing.assert_close(weight, torch.tensor([math.exp(-3), 1.0, math.exp(1.5), 100.0]))
    assert exponential_weight(torch.tensor([10.0]), temperature=1.0, largest=7.0).item() == 7.0
    assert torch.equal(exponential_weight(torch.tensor([1e9]), temperature=10.0), torch.tensor([100.0]))


def test_exponential_weights_are_constants_for_the_loss():
    assert not exponential_weight(normal(3).requires_grad_(), temperature=1.0).requires_grad


def test_exponential_weights_refuse_their_inverse_meaning():
    for settings in ({"temperature": -1.0}, {"temperature": math.nan}, {"temperature": 1.0, "largest": 0.0}):
        with pytest.raises(ValueError, match="must be at least 0 and largest"):
            exponential_weight(torch.zeros(2), **settings)


def test_expectile_loss_by_hand():
    """Targets above the value weigh 0.9, those below 0.1."""
    loss = expectile_loss(torch.tensor([2.0, -2.0, 0.0]), expectile=0.9)
    torch.testing.assert_close(loss, torch.tensor([3.6, 0.4, 0.0]))


@pytest.mark.parametrize(("expectile", "expected"), [(0.5, 0.5), (0.9, 0.9), (0.7, 0.7)])
def test_its_minimiser_over_two_targets_is_the_expectile(expectile, expected):
    """Of targets 0 and 1 in equal parts the expectile is itself: tau (1 - v) = (1 - tau) v."""
    value = torch.tensor(0.2, requires_grad=True)
    for _ in range(400):
        loss = expectile_loss(torch.tensor([0.0, 1.0]) - value, expectile=expectile).mean()
        value.data -= 0.5 * torch.autograd.grad(loss, value)[0]
    assert value.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("expectile", [0.0, 1.0, 1.5, -0.1])
def test_expectiles_lie_between_zero_and_one(expectile):
    with pytest.raises(ValueError, match=r"must lie between 0 and 1; 0\.5 is the mean"):
        expectile_loss(torch.zeros(2), expectile=expectile)
