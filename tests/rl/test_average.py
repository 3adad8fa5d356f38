"""Averages move by the share of the new weights, over parameters and buffers, and only into copies of one module."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from ornstein.rl.average import blend, blend_tensors


class Both(nn.Module):
    """Parameters, a floating-point buffer and a counter."""

    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3), float(value)))
        self.register_buffer("mean", torch.full((3,), 10.0 * value))
        self.register_buffer("count", torch.tensor(int(value)))


def test_by_hand():
    """0.75 * 1 + 0.25 * 5 = 2 for parameters, 20 for the buffer, and the counter is copied."""
    target, source = Both(1), Both(5)
    blend(target, source, 0.25)
    assert torch.equal(target.weight, torch.full((2, 3), 2.0))
    assert torch.equal(target.mean, torch.full((3,), 20.0))
    assert target.count.item() == 5
    assert source.weight.max().item() == 5
    assert source.mean.max().item() == 50


def test_rate_one_copies_every_bit():
    target, source = Both(1), Both(3)
    source.weight.data.uniform_(generator=torch.Generator().manual_seed(0))
    blend(target, source, 1.0)
    assert torch.equal(target.weight, source.weight)


def test_a_small_rate_forgets_exponentially():
    target, source = Both(1), Both(0)
    for _ in range(200):
        blend(target, source, 0.005)
    torch.testing.assert_close(target.weight.detach(), torch.full((2, 3), 0.995**200))


def test_it_happens_in_place_and_outside_of_gradients():
    target, source = Both(1), Both(5)
    address = target.weight.data_ptr()
    blend(target, source, 0.5)
    assert target.weight.data_ptr() == address
    assert target.weight.requires_grad
    assert target.weight.grad_fn is None


def test_other_modules_are_refused_by_name():
    target = Both(1)
    other = deepcopy(target)
    other.register_buffer("extra", torch.zeros(1))
    with pytest.raises(ValueError, match=r"differ in \['extra'\]: blend copies of one module"):
        blend(target, other, 0.5)


def test_named_tensors_may_carry_a_seed_axis():
    ours, theirs = {"a": torch.zeros(4, 3)}, {"a": torch.arange(4.0)[:, None].expand(4, 3)}
    blend_tensors(ours, theirs, 0.5)
    torch.testing.assert_close(ours["a"][:, 0], torch.tensor([0.0, 0.5, 1.0, 1.5]))
