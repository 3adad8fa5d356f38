"""The dual variable: its sign, its range, and what its loss does not touch."""

import pytest
import torch

from ornstein.rl.multiplier import Multiplier


def slope(multiplier: Multiplier, cost: float) -> float:
    (gradient,) = torch.autograd.grad(multiplier.loss(torch.tensor(cost)), [multiplier.value])
    return float(gradient)


def test_descending_its_loss_raises_it_while_the_cost_is_above_the_limit():
    multiplier = Multiplier(1.0, 0.3)
    assert slope(multiplier, 0.5) == pytest.approx(-0.2)
    assert slope(multiplier, 0.1) == pytest.approx(0.2)


@pytest.mark.parametrize(("value", "outward", "inward"), [(-0.01, 0.1, 0.5), (0.2, 0.1, 0.5), (2.1, 0.5, 0.1)])
def test_at_an_end_of_its_range_nothing_pushes_it_further_out(value, outward, inward):
    multiplier = Multiplier(1.0, 0.3, least=0.2, largest=2.0)
    multiplier.value.data.fill_(value)
    assert slope(multiplier, outward) == 0.0
    assert slope(multiplier, inward) != 0.0
    assert 0.2 <= float(multiplier()) <= 2.0


def test_it_is_a_number_to_those_who_use_it_and_its_loss_leaves_the_cost_alone():
    multiplier, cost = Multiplier(1.0, 0.3), torch.tensor(0.5, requires_grad=True)
    assert not multiplier().requires_grad
    assert torch.autograd.grad(multiplier.loss(cost), [cost], allow_unused=True) == (None,)
    with pytest.raises(ValueError, match="starts at 3"):
        Multiplier(3.0, 0.3, largest=2.0)
