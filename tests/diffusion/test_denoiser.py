"""Parameterisations meet in x0: targets and their inverses, preconditioning, clocks, bounds."""

import math

import pytest
import torch

from ornstein.diffusion.denoiser import (
    X0,
    Continuous,
    Denoiser,
    Eps,
    Index,
    LogSigma,
    Precondition,
    Score,
    V,
    Velocity,
)
from ornstein.diffusion.process import DiscreteVP, Flow, Karras, LinearVP, SubVP, corrupt, point
from ornstein.types import Point

PREDICTIONS = [Eps(), X0(), V(), Score(), Velocity(), Precondition(0.5), Precondition(1.3)]
PROCESSES = [LinearVP(), SubVP(), Karras(), Flow(), DiscreteVP(5)]
DOUBLE = torch.float64


def level(alpha: float, sigma: float, t: float = 0.4) -> Point:
    return Point(*(torch.tensor(v, dtype=DOUBLE) for v in ([t], [[alpha]], [[sigma]])))


def draws(*shape: int) -> tuple[torch.Tensor, ...]:
    source = torch.Generator().manual_seed(3)
    return tuple(torch.randn(shape, generator=source, dtype=DOUBLE) for _ in range(3))


@pytest.mark.parametrize("process", PROCESSES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("predict", PREDICTIONS, ids=lambda v: type(v).__name__)
def test_x0_comes_back_from_the_target(predict, process):
    x0, eps, _ = draws(4, 3, 2)
    at = point(process, torch.tensor([0.2, 0.4, 0.6, 0.9], dtype=DOUBLE), x0)
    x_t = corrupt(x0, at, eps)
    torch.testing.assert_close(predict.x0(predict.target(x0, at, eps), x_t, at), x0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("predict", PREDICTIONS, ids=lambda v: type(v).__name__)
def test_gain_is_the_size_of_the_outputs_error(predict, process):
    x0, eps, output = draws(4, 3)
    at = point(process, torch.tensor([0.2, 0.4, 0.6, 0.9], dtype=DOUBLE), x0)
    denoiser = Denoiser(lambda x, t, cond: output, process, predict)
    own, plain = denoiser.regression(x0, at, eps), denoiser.reconstruction(x0, at, eps)
    torch.testing.assert_close(own, plain * predict.gain(at) ** 2, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(
    ("predict", "target", "x0"),
    [
        (Eps(), 3.0, (2.0 - 0.6 * 5.0) / 0.8),
        (X0(), 1.0, 5.0),
        (V(), 0.8 * 3.0 - 0.6 * 1.0, 0.8 * 2.0 - 0.6 * 5.0),
        (Score(), -3.0 / 0.6, (2.0 + 0.36 * 5.0) / 0.8),
        (Velocity(), 3.0 - 1.0, (2.0 - 0.6 * 5.0) / 1.4),
    ],
    ids=lambda v: type(v).__name__,
)
def test_formulas_by_hand(predict, target, x0):
    """x0 = 1, eps = 3 at alpha = 0.8, sigma = 0.6; then an output of 5 at x_t = 2."""
    at, one = level(0.8, 0.6), torch.ones(1, 1, dtype=DOUBLE)
    assert predict.target(one, at, 3 * one).item() == pytest.approx(target)
    assert predict.x0(5 * one, 2 * one, at).item() == pytest.approx(x0)
    assert predict.scale(2 * one, at).item() == 2.0


def test_v_on_paths_that_do_not_preserve_variance():
    """alpha = 1, sigma = 2: x0 = (x - 2 v) / 5."""
    at, one = level(1.0, 2.0), torch.ones(1, 1, dtype=DOUBLE)
    assert V().x0(3 * one, 16 * one, at).item() == pytest.approx(2.0)


EDM = [
    (0.002, 0.999984, 0.002, 1.999984, -1.553652, 250004),
    (0.1, 0.961538, 0.098058, 1.961161, -0.575646, 104),
    (0.5, 0.5, 0.353553, 1.414214, -0.173287, 8),
    (2, 0.058824, 0.485071, 0.485071, 0.173287, 4.25),
    (80, 0.000039, 0.49999, 0.0125, 1.095507, 4.000156),
]


@pytest.mark.parametrize(("sigma", "c_skip", "c_out", "c_in", "c_noise", "weight"), EDM)
def test_preconditioning_has_the_published_coefficients(sigma, c_skip, c_out, c_in, c_noise, weight):
    predict, at = Precondition(), level(1.0, sigma)
    zero, one = torch.zeros(1, 1, dtype=DOUBLE), torch.ones(1, 1, dtype=DOUBLE)
    assert predict.x0(zero, one, at).item() == pytest.approx(c_skip, rel=1e-5, abs=5e-7)
    assert predict.x0(one, zero, at).item() == pytest.approx(c_out, rel=1e-5)
    assert predict.scale(one, at).item() == pytest.approx(c_in, rel=1e-4)
    assert LogSigma().label(at).tolist() == pytest.approx([c_noise], abs=1e-6)
    assert predict.gain(at).item() ** 2 == pytest.approx(weight, rel=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("sigma", [0.01, 1.0, 40.0])
def test_preconditioned_inputs_and_targets_have_unit_variance(alpha, sigma):
    """Affine in x0 and eps: the variances are sums of squared weights, and F = 0 costs exactly 1."""
    predict, at = Precondition(1.3), level(alpha, sigma)
    zero, one = torch.zeros(1, 1, dtype=DOUBLE), torch.ones(1, 1, dtype=DOUBLE)
    target = [predict.target(1.3 * one, at, zero).item(), predict.target(zero, at, one).item()]
    shown = predict.scale(corrupt(1.3 * one, at, zero), at).item(), predict.scale(corrupt(zero, at, one), at).item()
    assert math.hypot(*target) == pytest.approx(1.0)
    assert math.hypot(*shown) == pytest.approx(1.0)
    denoiser = Denoiser(lambda x, t, cond: torch.zeros_like(x), Karras(), predict)
    cost = denoiser.regression(1.3 * one, at, zero) + denoiser.regression(zero, at, one)
    assert cost.item() == pytest.approx(1.0)


def test_clocks():
    at = Point(torch.tensor([0.2, 1.0]), torch.tensor([[1.0], [0.5]]), torch.tensor([[1.0], [0.5 * math.e**2]]))
    assert Continuous().label(at).tolist() == pytest.approx([0.2, 1.0])
    assert Continuous(999.0).label(at).tolist() == pytest.approx([199.8, 999.0])
    assert Index(5).label(at).tolist() == pytest.approx([0.0, 4.0], abs=1e-6)
    assert LogSigma().label(at).tolist() == pytest.approx([0.0, 0.5])
    assert LogSigma(1.0).label(at).tolist() == pytest.approx([0.0, 2.0])


def test_the_network_is_shown_scaled_input_label_and_condition():
    seen = []

    def network(x, label, cond):
        seen.append((x, label, cond))
        return x + cond

    denoiser = Denoiser(network, Karras(), Precondition(), clock=LogSigma())
    at, x = level(1.0, 2.0), torch.full((1, 1), 3.0, dtype=DOUBLE)
    denoiser(x, at, 7.0)
    assert seen[0][0].item() == pytest.approx(3.0 / math.sqrt(4.25))
    assert seen[0][1].item() == pytest.approx(math.log(2.0) / 4)
    assert seen[0][2] == 7.0
    assert denoiser.given(7.0)(x, at).item() == denoiser(x, at, 7.0).item() != denoiser(x, at, 0.0).item()


def test_losses_pass_the_condition_on():
    denoiser = Denoiser(lambda x, t, cond: cond * torch.ones_like(x), LinearVP(), X0())
    x0, eps, _ = draws(2, 3)
    at = point(LinearVP(), torch.tensor([0.3, 0.6], dtype=DOUBLE), x0)
    torch.testing.assert_close(denoiser.regression(x0, at, eps, 4.0), (4.0 - x0) ** 2)
    torch.testing.assert_close(denoiser.reconstruction(x0, at, eps, 4.0), (4.0 - x0) ** 2)


def test_the_bound_holds_x0_but_not_the_losses():
    denoiser = Denoiser(lambda x, t, cond: cond, LinearVP(), X0(), bound=0.5)
    x, at = torch.zeros(1, 3, dtype=DOUBLE), level(0.8, 0.6)
    answer = torch.tensor([[-2.0, 0.25, 2.0]], dtype=DOUBLE)
    assert denoiser(x, at, answer).tolist() == [[-0.5, 0.25, 0.5]]
    torch.testing.assert_close(denoiser.reconstruction(x, at, x, answer), answer**2)
    assert Denoiser(lambda x, t, cond: cond, LinearVP(), X0())(x, at, answer).tolist() == answer.tolist()


def test_a_network_that_prepares_nothing_is_called_at_every_level():
    """Networks without a method `at` are asked as they are, one call a level."""
    from ornstein.diffusion.grid import uniform
    from ornstein.diffusion.process import DiscreteVP
    from ornstein.diffusion.solver import DDIM, sample

    chain, seen = DiscreteVP(4), []

    def network(x: torch.Tensor, t: torch.Tensor, cond: None) -> torch.Tensor:
        seen.append(t[0].item())
        return 0.1 * x

    given = Denoiser(network, chain, Eps(), clock=Index(4)).given(None)
    sample(given, torch.ones(3, 2), uniform(chain, 4), solver=DDIM())
    assert seen == [3.0, 2.0, 1.0, 0.0]
