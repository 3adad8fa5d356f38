"""Gradients, transforms and graphs of guided denoisers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from oracles.guided import HALF, PLAIN, VP, column, level, noisy
from ornstein.diffusion.grid import log_snr
from ornstein.diffusion.guidance import (
    ascend,
    by_snr,
    classifier,
    classifier_free,
    classifier_free_stacked,
    compose,
    cool,
    energy,
    interval,
    pseudoinverse,
    reconstruction,
)
from ornstein.diffusion.solver import sample
from ornstein.types import Denoise, Point


class Value(nn.Module):
    """A small potential with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Mish(), nn.Linear(8, 1)).double()

    def forward(self, x: Tensor, point: Point) -> Tensor:
        return self.net(x).squeeze(1) * point.t


def guides(value: Callable[[Tensor, Point], Tensor]) -> list[Denoise]:
    """Every guidance that takes a gradient."""

    def curved(x: Tensor, point: Point) -> Tensor:
        return PLAIN(x, point) + 0.1 * torch.sin(x)

    def judge(x0: Tensor) -> Tensor:
        return value(x0, level(*[(1.0, 1.0)] * len(x0)))

    return [
        classifier(curved, value, 0.7),
        energy(curved, value, 0.7),
        reconstruction(curved, judge, 0.7),
        pseudoinverse(curved, lambda x0: x0, torch.ones(1, 2, dtype=torch.float64)),
        lambda x, point: ascend(value, 0.7)(x, point, level(*[(0.8, 0.6)] * len(x), t=0.4)),
    ]


def build(seed: int = 0) -> tuple[Value, Tensor, Point]:
    torch.manual_seed(seed)
    return Value(), torch.randn(3, 2, dtype=torch.float64), level((0.6, 0.8), (0.7, 0.5), (0.9, 0.3))


@pytest.mark.parametrize("which", range(5))
def test_guidance_works_without_gradients_and_leaves_no_graph(which: int):
    value, x, point = build()
    with torch.no_grad():
        silent = guides(value)[which](x, point)
    with torch.inference_mode():
        inferred = guides(value)[which](x, point)
    loud = guides(value)[which](x, point)
    assert not silent.requires_grad
    torch.testing.assert_close(silent, loud)
    torch.testing.assert_close(inferred, loud)


@pytest.mark.parametrize("which", range(5))
def test_guidance_is_differentiable_in_x(which: int):
    value, x, point = build()
    assert torch.autograd.gradcheck(lambda y: guides(value)[which](y, point), x.requires_grad_())


@pytest.mark.parametrize("which", [0, 1, 2, 4])
def test_guidance_is_differentiable_in_the_parameters(which: int):
    value, x, point = build()

    def total(weight: Tensor) -> Tensor:
        def changed(y: Tensor, level: Point) -> Tensor:
            return torch.func.functional_call(value, {"net.0.weight": weight}, (y, level))

        return guides(changed)[which](x, point).square().sum()

    assert torch.autograd.gradcheck(total, value.net[0].weight.detach().clone().requires_grad_())


def test_a_loss_reaches_through_a_guided_chain():
    start = column(0.5).requires_grad_()
    levels, w = log_snr(VP, 10), torch.tensor(1.3, dtype=torch.float64, requires_grad=True)

    def end(start: Tensor, w: Tensor) -> Tensor:
        return sample(classifier(PLAIN, noisy, w), start, levels)

    assert torch.autograd.gradcheck(end, (start, w))


@pytest.mark.parametrize("which", range(5))
def test_guidance_over_stacked_seeds(which: int):
    values = [build(seed)[0] for seed in range(2)]
    _, x, point = build()
    stacked = {
        name: torch.stack([dict(v.named_parameters())[name] for v in values])
        for name, _ in values[0].named_parameters()
    }

    def one(parameters: dict[str, Tensor]) -> Tensor:
        return guides(lambda y, at: torch.func.functional_call(values[0], parameters, (y, at)))[which](x, point)

    together = torch.func.vmap(one)(stacked)
    for seed in range(2):
        torch.testing.assert_close(together[seed], guides(values[seed])[which](x, point))


@pytest.mark.graph
@pytest.mark.parametrize("which", range(5))
def test_guidance_is_one_graph(which: int):
    value, x, point = build()
    compiled = torch.compile(guides(value)[which], fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, point), guides(value)[which](x, point))
    torch.testing.assert_close(compiled(x, point), guides(value)[which](x, point))


@pytest.mark.graph
def test_the_other_guidances_are_one_graph():
    _, x, point = build()

    def all_of_them(x: Tensor, point: Point) -> Tensor:
        free = classifier_free(HALF.denoise, PLAIN, interval(0.2, 0.8, 3.0))
        stacked = classifier_free_stacked(PLAIN, interval(0.2, 0.8, 3.0, clock="sigma"))
        return compose(free, [stacked, PLAIN], [by_snr(1.0), -0.5])(cool(x, 0.5), point)

    compiled = torch.compile(all_of_them, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, point), all_of_them(x, point))
