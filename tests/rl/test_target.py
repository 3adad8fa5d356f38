"""The temporal-difference target, by hand, and its refusal of shapes that would broadcast."""

import pytest
import torch

from nets.reference import normal
from ornstein.rl.target import td_target


def test_by_hand():
    """1 + 0.9 * 10; a terminal step keeps its reward only; -2 + 0.5 * 4."""
    reward, terminal = torch.tensor([1.0, 1.0, -2.0]), torch.tensor([0.0, 1.0, 0.0])
    discount, value = torch.tensor([0.9, 0.9, 0.5]), torch.tensor([10.0, 10.0, 4.0])
    torch.testing.assert_close(td_target(reward, terminal, discount, value), torch.tensor([10.0, 1.0, 0.0]))


def test_it_is_a_constant_for_the_loss():
    value = normal(4).requires_grad_()
    target = td_target(normal(4), torch.zeros(4), torch.full((4,), 0.99), value)
    assert not target.requires_grad


@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("shape", [(4, 1), (1,), (), (2, 4)])
def test_shapes_that_would_broadcast_are_refused(position, shape):
    given = [torch.zeros(4) for _ in range(4)]
    given[position] = torch.zeros(shape)
    # The runtime shape checker of the test run refuses them first, with an error of its own.
    with pytest.raises((ValueError, TypeError)):
        td_target(*given)


@pytest.mark.graph
def test_the_refusal_names_the_shapes():
    """Run without the runtime shape checker, which is what users run."""
    with pytest.raises(ValueError, match=r"'next_value': \(4, 1\).*\(b, 1\) against \(b,\) would broadcast"):
        td_target(torch.zeros(4), torch.zeros(4), torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"'reward': \(4, 1\)"):
        td_target(*(torch.zeros(4, 1) for _ in range(4)))
    with pytest.raises(ValueError, match=r"'terminal': \(1,\)"):
        td_target(torch.zeros(4), torch.zeros(1), torch.zeros(4), torch.zeros(4))
