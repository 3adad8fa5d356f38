"""Runge-Kutta in time: orders on straight paths, SciPy's own steps, exact flow maps."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from oracles.gaussian import MIXTURE, Gaussian, normal_quantiles, slopes, transport_error
from ornstein.diffusion.grid import Grid, at, uniform
from ornstein.diffusion.process import VE, Flow, LinearVP
from ornstein.diffusion.runge_kutta import DORMAND_PRINCE, MIDPOINT, RK4, RK45, RungeKutta, flow_slope, rk45
from ornstein.diffusion.solver import sample

DOUBLE = torch.float64
DATA = Gaussian(1.0, 0.5)
STARTS = torch.linspace(-2, 2, 9, dtype=DOUBLE)[:, None]


def exact(process, x, start: float, end: float, data=DATA) -> torch.Tensor:
    now, then = (tuple(process.rates(torch.tensor(t, dtype=DOUBLE))) for t in (start, end))
    return data.transport(x, now, then)


def test_fixed_steps_have_the_published_errors_on_straight_paths():
    """The table's slope at the data itself is approached by t = 1e-8."""
    grids = [uniform(Flow(), n + 1, end=1e-8) for n in (4, 8, 16, 32, 64, 128)]
    got = {
        name: [transport_error(MIXTURE, RungeKutta(Flow(), name), grid, normal_quantiles(64)) for grid in grids]
        for name in ("midpoint", "rk4")
    }
    assert got["midpoint"] == pytest.approx([0.0351, 0.0113, 3.15e-3, 8.29e-4, 2.13e-4, 5.4e-5], rel=0.01)
    assert got["rk4"] == pytest.approx([5.5e-3, 2.78e-4, 1.79e-5, 1.10e-6, 6.75e-8, 4.2e-9], rel=0.02)
    assert slopes(got["midpoint"])[-1] == pytest.approx(1.98, abs=0.02)
    assert slopes(got["rk4"])[-1] == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize(("scheme", "order"), [("midpoint", 2), ("rk4", 4)])
def test_fixed_steps_keep_their_order_on_curved_paths(scheme, order):
    grids = [uniform(LinearVP(), n + 1, end=0.05) for n in (32, 64)]
    errors = [transport_error(DATA, RungeKutta(LinearVP(), scheme), grid, STARTS) for grid in grids]
    assert slopes(errors) == pytest.approx([order], abs=0.2)
    assert RungeKutta(LinearVP(), scheme).calls == order


@pytest.mark.parametrize(
    ("process", "end", "tolerance"),
    [
        (LinearVP(), 1e-3, 1e-3),
        (LinearVP(), 1e-3, 1e-5),
        (LinearVP(), 1e-3, 1e-8),
        (VE(), 1e-5, 1e-5),
        (Flow(), 1e-3, 1e-8),
    ],
    ids=lambda v: type(v).__name__,
)
def test_adaptive_steps_are_scipys(process, end, tolerance):
    x = 50 * STARTS if isinstance(process, VE) else STARTS
    slope = flow_slope(DATA.denoise, process)
    theirs = solve_ivp(
        lambda t, y: slope(t, torch.tensor(y)[:, None])[:, 0].numpy(), (1.0, end), x[:, 0].numpy(), rtol=tolerance,
        atol=tolerance,
    )  # fmt: skip
    ours, calls = rk45(slope, x, 1.0, end, rtol=tolerance, atol=tolerance)
    assert calls == theirs.nfev
    np.testing.assert_allclose(ours[:, 0].numpy(), theirs.y[:, -1], rtol=1e-9, atol=1e-12)


def test_adaptive_calls_and_errors_are_near_the_published_ones():
    """Counts within 20 %; at 1e-5 and 1e-8 the counts are the reference values."""
    for tolerance, calls, error in ((1e-3, 38, 1.2e-3), (1e-5, 74, 2.8e-6), (1e-8, 164, 6e-9)):
        got, made = rk45(flow_slope(DATA.denoise, LinearVP()), STARTS, 1.0, 1e-3, rtol=tolerance, atol=tolerance)
        assert made == pytest.approx(calls, rel=0.2)
        assert (got - exact(LinearVP(), STARTS, 1.0, 1e-3)).abs().max().item() < error


def test_time_runs_both_ways():
    slope = flow_slope(DATA.denoise, LinearVP())
    code, _ = rk45(slope, STARTS, 1e-3, 1.0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(code, exact(LinearVP(), STARTS, 1e-3, 1.0), rtol=0, atol=1e-6)
    back, _ = rk45(slope, code, 1.0, 1e-3, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(back, STARTS, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "slope", "y0", "span"),
    [
        ("rejections", lambda t, y: -50 * (y - math.cos(t)), [0.0], (0.0, 1.5)),
        ("no slope at first", lambda t, y: torch.full_like(y, t**5), [1.0], (0.0, 2.0)),
        ("no slope at all", lambda t, y: 0 * y, [1.0, 2.0], (0.0, 3.0)),
        ("from zero", lambda t, y: 1 + y, [0.0], (0.0, 1.0)),
        ("backwards", lambda t, y: -50 * (y - math.cos(t)), [1.0], (0.3, 0.1)),
        ("short", lambda t, y: y, [1.0], (0.0, 1e-5)),
        ("tiny", lambda t, y: 1e-9 * y, [1e-9], (0.0, 1.0)),
        ("sudden", lambda t, y: torch.full_like(y, 1e3 * math.exp(-((t - 5.0) ** 2) * 100)), [1.0], (0.0, 10.0)),
    ],
)
def test_the_step_control_is_scipys(name, slope, y0, span):
    """Also where steps are rejected, where the first step has nothing to go by, and at the limits of its change."""
    theirs = solve_ivp(lambda t, y: slope(t, torch.tensor(y)).numpy(), span, y0, rtol=1e-4, atol=1e-6)
    ours, calls = rk45(slope, torch.tensor(y0, dtype=DOUBLE), *span, rtol=1e-4, atol=1e-6)
    assert calls == theirs.nfev
    np.testing.assert_allclose(ours.numpy(), theirs.y[:, -1], rtol=1e-10, atol=1e-13)


def test_steps_below_the_resolution_of_time_are_refused():
    with pytest.raises(ValueError, match=r"fell below the resolution of t = .*raise rtol = 1e-05"):
        rk45(lambda t, y: torch.full_like(y, math.nan) if t > 0.5 else y**2, torch.ones(1, dtype=DOUBLE), 0.0, 1.0)


def test_adaptive_steps_are_a_solver():
    """From level to level of a grid; the tolerances are passed on; the default is 1e-5."""
    grid = at(LinearVP(), torch.tensor([1.0, 0.3, 1e-3], dtype=DOUBLE))
    fine = RK45(LinearVP(), 1e-9, 1e-9)
    expected = exact(LinearVP(), STARTS, 1.0, 1e-3)
    torch.testing.assert_close(
        sample(DATA.denoise, STARTS, grid, solver=fine, finish=False), expected, rtol=0, atol=1e-8
    )
    loose = sample(DATA.denoise, STARTS, Grid(*(e[[0, 2]] for e in grid)), solver=RK45(LinearVP()), finish=False)
    same, _ = rk45(flow_slope(DATA.denoise, LinearVP()), STARTS, 1.0, 1e-3)
    assert torch.equal(loose, same)
    assert 1e-8 < (loose - expected).abs().max() < 1e-5
    assert fine.calls == 0 and fine.draws == 0


def test_only_one_tolerance_matters_where_the_other_is_small():
    slope = flow_slope(DATA.denoise, LinearVP())
    relative, absolute = (
        (rk45(slope, STARTS, 1.0, 0.1, rtol=r, atol=a)[0] - exact(LinearVP(), STARTS, 1.0, 0.1)).abs().max().item()
        for r, a in ((1e-3, 1e-12), (1e-12, 1e-3))
    )
    assert 1e-5 < relative < 1e-2 and 1e-5 < absolute < 1e-2


def test_the_slope_is_that_of_the_path():
    """Straight path, point data at 1.7: dx/dt = (x - 1.7) / t."""
    got = flow_slope(Gaussian(1.7, 0.0).denoise, Flow())(0.4, STARTS)
    torch.testing.assert_close(got, (STARTS - 1.7) / 0.4)


def test_flow_velocity_of_a_gaussian():
    """In the papers' time s = 1 - t: u = mu + (s v - (1 - s)) / ((1 - s)^2 + s^2 v) (x - s mu), and dx/dt = -u."""
    for s in (0.1, 0.5, 0.9):
        u = 1.0 + (s * 0.25 - (1 - s)) / ((1 - s) ** 2 + s**2 * 0.25) * (STARTS - s)
        torch.testing.assert_close(flow_slope(DATA.denoise, Flow())(1 - s, STARTS), -u, rtol=1e-12, atol=1e-12)


def test_a_flow_is_the_affine_map_of_a_gaussian_and_the_quantile_map_of_a_mixture():
    got, calls = rk45(flow_slope(DATA.denoise, Flow()), STARTS, 1.0, 1e-9, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(got, 1 + 0.5 * STARTS, rtol=0, atol=8e-9)
    assert calls == pytest.approx(122, rel=0.2)
    got, _ = rk45(flow_slope(MIXTURE.denoise, Flow()), STARTS, 1.0, 1e-9, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got, exact(Flow(), STARTS, 1.0, 1e-9, MIXTURE), rtol=0, atol=1e-8)


@pytest.mark.parametrize("tableau", [MIDPOINT, RK4], ids=("midpoint", "rk4"))
def test_weights_of_the_fixed_schemes_meet_the_order_conditions(tableau):
    nodes = [sum(reach) for reach in tableau.reach]
    assert sum(tableau.weights) == pytest.approx(1)
    assert sum(b * c for b, c in zip(tableau.weights, nodes, strict=True)) == pytest.approx(1 / 2)


def test_dormand_prince_meets_the_order_conditions():
    """Sums of b c^(q - 1) are 1 / q up to q = 5; those of the error weights are 0 up to q = 4."""
    nodes = [sum(reach) for reach in DORMAND_PRINCE.reach]
    assert nodes == pytest.approx([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
    for q in range(1, 6):
        step = sum(b * c ** (q - 1) for b, c in zip(DORMAND_PRINCE.reach[-1], nodes, strict=False))
        assert step == pytest.approx(1 / q)
    for q in range(1, 5):
        error = sum(e * c ** (q - 1) for e, c in zip(DORMAND_PRINCE.weights, nodes, strict=True))
        assert error == pytest.approx(0, abs=1e-15)


def test_a_slope_that_is_not_a_number_is_refused_and_does_not_hang():
    with pytest.raises(ValueError, match="not finite"):
        rk45(lambda t, y: y * torch.nan, torch.ones(2), 0.0, 1.0)
