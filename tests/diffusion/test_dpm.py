"""DPM-Solver and DPM-Solver++: a table of reference values, orders of convergence, and each formula by hand."""

import math
from itertools import pairwise

import pytest
import torch

from oracles.gaussian import MIXTURE, Gaussian, moments, normal_quantiles, slopes, transport_error
from ornstein.diffusion.dpm import DPMSolver2, DPMSolver2M, DPMSolver3, DPMSolverPP2M, DPMSolverPP3M, lam
from ornstein.diffusion.grid import log_snr, quadratic, uniform
from ornstein.diffusion.process import Flow, LinearVP
from ornstein.diffusion.solver import DDIM, sample
from ornstein.types import Point

DOUBLE = torch.float64
VP = LinearVP()
STARTS = normal_quantiles(64)


def level(alpha: float, sigma: float) -> Point:
    return Point(*(torch.tensor(v, dtype=DOUBLE) for v in ([0.5], [[alpha]], [[sigma]])))


TABLE = [
    (DDIM(), 16, [2.15e-1, 1.12e-1, 5.78e-2, 2.93e-2, 1.49e-2], [0.94, 0.96, 0.98, 0.98]),
    (DPMSolver2(VP), 8, [1.93e-1, 4.46e-2, 1.02e-2, 2.45e-3, 5.99e-4], [2.11, 2.12, 2.06, 2.03]),
    (DPMSolver2(VP, "x0"), 8, [1.24e-1, 4.05e-2, 1.17e-2, 3.18e-3, 8.29e-4], [1.62, 1.79, 1.88, 1.94]),
    (DPMSolver3(VP), 8, [2.35e-2, 1.27e-3, 1.42e-4, 1.87e-5, 2.40e-6], [4.21, 3.16, 2.92, 2.96]),
    (DPMSolver3(VP, "x0"), 8, [1.88e-2, 3.00e-3, 4.47e-4, 6.06e-5, 7.87e-6], [2.65, 2.74, 2.88, 2.95]),
    (DPMSolver2M(), 16, [5.94e-2, 1.77e-2, 4.85e-3, 1.26e-3, 3.22e-4], [1.75, 1.86, 1.94, 1.97]),
    (DPMSolverPP2M(), 16, [5.04e-2, 1.20e-2, 2.88e-3, 7.05e-4, 1.74e-4], [2.07, 2.06, 2.03, 2.02]),
    (DPMSolverPP3M(), 16, [1.25e-2, 1.68e-3, 2.50e-4, 3.39e-5, 4.47e-6], [2.90, 2.75, 2.88, 2.92]),
    (DPMSolverPP3M(compat=True), 16, [1.29e-2, 2.76e-3, 7.46e-4, 1.96e-4, 5.04e-5], [2.23, 1.89, 1.93, 1.96]),
]


@pytest.mark.parametrize(("solver", "first", "errors", "orders"), TABLE, ids=lambda v: type(v).__name__)
def test_errors_and_orders_are_the_published_ones(solver, first, errors, orders):
    grids = [log_snr(VP, first * 2**i + 1) for i in range(5)]
    got = [transport_error(MIXTURE, solver, grid, STARTS) for grid in grids]
    assert got == pytest.approx(errors, rel=0.01)
    assert slopes(got) == pytest.approx(orders, abs=0.02)


def test_the_third_order_multistep_formula_needs_its_factor_of_two():
    """As copied between libraries it halves the second difference and converges with order two."""
    grids = [log_snr(VP, n + 1) for n in (128, 256)]
    for form, right, wrong in (("x0", 4.47e-6, 5.04e-5), ("eps", 8.28e-6, 8.90e-5)):
        ours, theirs = (
            [transport_error(MIXTURE, DPMSolverPP3M(form, compat), grid, STARTS) for grid in grids]
            for compat in (False, True)
        )
        assert (ours[1], theirs[1]) == pytest.approx((right, wrong), rel=0.01)
        assert theirs[1] / ours[1] > 5
        assert slopes(ours)[0] == pytest.approx(3, abs=0.15)
        assert slopes(theirs)[0] == pytest.approx(2, abs=0.15)


def test_other_grids_have_the_published_errors():
    cases = [
        (DDIM(), 256, 1.33e-2, 9.31e-3),
        (DPMSolverPP2M(), 256, 2.73e-3, 1.09e-4),
        (DPMSolver3(VP, "x0"), 128, 3.86e-5, 1.71e-6),
    ]
    for solver, n, even, square in cases:
        assert transport_error(MIXTURE, solver, uniform(VP, n + 1, end=1e-3), STARTS) == pytest.approx(even, rel=0.01)
        assert transport_error(MIXTURE, solver, quadratic(VP, n + 1), STARTS) == pytest.approx(square, rel=0.01)


def test_multistep_on_even_times_is_bad_at_few_steps_and_better_with_a_last_step_of_first_order():
    grid = uniform(VP, 17, end=1e-3)
    assert transport_error(MIXTURE, DPMSolverPP2M(), grid, STARTS) == pytest.approx(2.91e-1, rel=0.01)
    head = type(grid)(*(e[:-1] for e in grid))
    tail = type(grid)(*(e[-2:] for e in grid))
    x = sample(MIXTURE.denoise, STARTS, head, solver=DPMSolverPP2M(), finish=False)
    x = sample(MIXTURE.denoise, x, tail, solver=DDIM(), finish=False)
    exact = MIXTURE.transport(STARTS, (grid.alpha[0], grid.sigma[0]), (grid.alpha[-1], grid.sigma[-1]))
    assert (x - exact).abs().max().item() == pytest.approx(1.02e-1, rel=0.01)


def test_equal_calls_have_the_published_errors():
    for calls, first, single2, single3, plus2, multi, third in (
        (12, 0.284, 0.347, 0.121, 0.190, 0.0889, 0.0341),
        (24, 0.146, 0.083, 0.0235, 0.0657, 0.0218, 0.0049),
    ):
        cases = {
            DDIM(): (1, first), DPMSolver2(VP): (2, single2), DPMSolver3(VP): (3, single3),
            DPMSolver2(VP, "x0"): (2, plus2), DPMSolverPP2M(): (1, multi), DPMSolverPP3M(compat=True): (1, third),
        }  # fmt: skip
        for solver, (each, error) in cases.items():
            assert solver.calls == each
            grid = log_snr(VP, calls // each + 1)
            assert transport_error(MIXTURE, solver, grid, STARTS) == pytest.approx(error, rel=0.012)


@pytest.mark.parametrize(
    ("data", "eta", "variances"),
    [
        (Gaussian(0.0, 0.5), 0, [0.111474, 0.160904, 0.198714, 0.222393, 0.235691]),
        (Gaussian(0.0, 1.0), 0, [0.44507, 0.64332, 0.79454, 0.88925, 0.94244]),
        (Gaussian(0.0, 0.5), 1, [0.269030, 0.265608, 0.254675, 0.251265, 0.250380]),
        (Gaussian(0.0, 1.0), 1, [1.09343, 1.06295, 1.01844, 1.00474, 1.00119]),
    ],
)
def test_the_sde_solvers_have_the_published_variances(data, eta, variances):
    """Order 1 is DDIM at eta = 1, order 2 its multistep form."""
    solver = DPMSolverPP2M(1.0) if eta else DDIM(1.0)
    got = [moments(data, solver, log_snr(VP, n + 1), finish=False)[1] for n in (10, 20, 40, 80, 160)]
    assert got == pytest.approx(variances, rel=1e-5)


A, B, C = level(0.2, 0.9), level(0.5, 0.8), level(0.9, 0.3)
H0, H = math.log(0.5 / 0.8) - math.log(0.2 / 0.9), math.log(0.9 / 0.3) - math.log(0.5 / 0.8)


def run(solver, answers: list[float], levels: list[Point]) -> list[float]:
    """States of a start at 1 under a denoiser that gives these answers in turn, and where it was asked."""
    given = iter(answers)
    x, memory, states = torch.ones(1, 1, dtype=DOUBLE), solver.init(torch.ones(1, 1, dtype=DOUBLE)), []
    for now, then in pairwise(levels):
        x, memory = solver.step(lambda x, p: torch.full_like(x, next(given)), x, now, then, None, memory)
        states.append(x.item())
    return states


def test_the_second_order_multistep_by_hand():
    """x' = sigma'/sigma x - alpha' expm1(-h) (m0 + (m0 - m1) / (2 r)), r = h0 / h."""
    first, second = run(DPMSolverPP2M(), [2.0, 3.0], [A, B, C])
    assert first == pytest.approx(0.8 / 0.9 - 0.5 * math.expm1(-H0) * 2.0)
    middle = 3.0 + (3.0 - 2.0) / (2 * H0 / H)
    assert second == pytest.approx(0.3 / 0.8 * first - 0.9 * math.expm1(-H) * middle)


def test_the_second_order_sde_multistep_by_hand():
    """x' = sigma'/sigma e^-h x - alpha' expm1(-2h) (m0 + (m0 - m1) / (2 r)) + sigma' sqrt(-expm1(-2h)) z."""
    first, second = run(DPMSolverPP2M(1.0), [2.0, 3.0], [A, B, C])
    assert first == pytest.approx(0.8 / 0.9 * math.exp(-H0) - 0.5 * math.expm1(-2 * H0) * 2.0)
    middle = 3.0 + (3.0 - 2.0) / (2 * H0 / H)
    assert second == pytest.approx(0.3 / 0.8 * math.exp(-H) * first - 0.9 * math.expm1(-2 * H) * middle)
    zero = torch.zeros(1, 1, dtype=DOUBLE)
    kicked, _ = DPMSolverPP2M(1.0).step(lambda x, p: 0 * x, zero, B, C, zero + 2, DPMSolverPP2M().init(zero))
    assert kicked.item() == pytest.approx(2 * 0.3 * math.sqrt(-math.expm1(-2 * H)))


def test_the_second_order_multistep_in_eps_by_hand():
    """x' = alpha'/alpha x - sigma' expm1(h) (e0 + (e0 - e1) / (2 r)) with e = (x - alpha x0) / sigma."""
    first, second = run(DPMSolver2M(), [2.0, 3.0], [A, B, C])
    e1 = (1.0 - 0.2 * 2.0) / 0.9
    assert first == pytest.approx(0.5 / 0.2 - 0.8 * math.expm1(H0) * e1)
    e0 = (first - 0.5 * 3.0) / 0.8
    middle = e0 + (e0 - e1) / (2 * H0 / H)
    assert second == pytest.approx(0.9 / 0.5 * first - 0.3 * math.expm1(H) * middle)


@pytest.mark.parametrize("compat", [False, True])
def test_the_third_order_multistep_by_hand(compat):
    """The formula of the paper, with D2 = 2 (D10 - D11) / (r0 + r1), and without the 2."""
    end = level(0.95, 0.1)
    h1, h0, h = H0, H, math.log(0.95 / 0.1) - math.log(0.9 / 0.3)
    first, second, third = run(DPMSolverPP3M(compat=compat), [2.0, 3.0, 3.5], [A, B, C, end])
    assert first == pytest.approx(0.8 / 0.9 - 0.5 * math.expm1(-h1) * 2.0)
    p1, p2 = math.expm1(-h0), math.expm1(-h0) / h0 + 1
    assert second == pytest.approx(0.3 / 0.8 * first - 0.9 * p1 * 3.0 + 0.9 * p2 * (3.0 - 2.0) / (h1 / h0))
    r0, r1 = h0 / h, h1 / h
    d10, d11 = (3.5 - 3.0) / r0, (3.0 - 2.0) / r1
    d1, d2 = d10 + r0 / (r0 + r1) * (d10 - d11), (1 if compat else 2) * (d10 - d11) / (r0 + r1)
    p1, p2 = math.expm1(-h), math.expm1(-h) / h + 1
    p3 = p2 / h - 0.5
    assert third == pytest.approx(0.1 / 0.3 * second - 0.95 * p1 * 3.5 + 0.95 * p2 * d1 - 0.95 * p3 * d2)


def test_the_third_order_multistep_in_eps_by_hand():
    """First step: x' = alpha'/alpha x - sigma' expm1(h) e; second: minus sigma' (expm1(h) / h - 1) D1 as well."""
    first, second = run(DPMSolverPP3M("eps"), [2.0, 3.0], [A, B, C])
    e1 = (1.0 - 0.2 * 2.0) / 0.9
    assert first == pytest.approx(0.5 / 0.2 - 0.8 * math.expm1(H0) * e1)
    e0 = (first - 0.5 * 3.0) / 0.8
    slope = (e0 - e1) / (H0 / H)
    expected = 0.9 / 0.5 * first - 0.3 * math.expm1(H) * e0 - 0.3 * (math.expm1(H) / H - 1) * slope
    assert second == pytest.approx(expected)


def test_levels_between_lie_at_shares_of_the_step_in_lam():
    grid = log_snr(VP, 3)
    for solver, shares in ((DPMSolver2(VP), [0, 1 / 2]), (DPMSolver3(VP), [0, 1 / 3, 2 / 3])):
        seen = []

        def denoise(x, point, seen=seen):
            seen.append(lam(point).item())
            return x

        sample(denoise, torch.ones(1, 1, dtype=DOUBLE), grid, solver=solver, finish=False)
        first, second = seen[: len(shares)], seen[len(shares) :]
        step = (9.582693 / 2, -5.024978)
        assert first == pytest.approx([step[1] + share * step[0] for share in shares], abs=1e-5)
        assert second == pytest.approx([step[1] + (1 + share) * step[0] for share in shares], abs=1e-5)


def test_lam_is_finite_without_signal():
    """Held at alpha = 1e-20, so that the first step of a straight path is one of first order."""
    assert lam(level(0.9, 0.3)).item() == pytest.approx(math.log(3.0))
    assert lam(level(0.0, 1.0)).item() == pytest.approx(-20 * math.log(10))
    x = torch.ones(1, 1, dtype=DOUBLE)
    grid = uniform(Flow(), 2)
    got = sample(MIXTURE.denoise, x, grid, solver=DPMSolverPP2M(), finish=False)
    torch.testing.assert_close(got, sample(MIXTURE.denoise, x, grid, solver=DDIM(), finish=False), rtol=1e-12, atol=0)


def test_the_second_order_multistep_refuses_what_ddim_refuses():
    with pytest.raises(ValueError, match=r"eta = 1\.5"):
        DPMSolverPP2M(1.5)
    assert DPMSolverPP2M(0.0).draws == 0 and DPMSolverPP2M(0.5).draws == 1
    assert DPMSolver2M().draws == DPMSolverPP3M().draws == DPMSolver2(VP).draws == DPMSolver3(VP).draws == 0


def test_points_of_data_are_met_exactly_by_the_forms_in_x0():
    for solver in (DPMSolverPP2M(), DPMSolverPP2M(1.0), DPMSolverPP3M(), DPMSolver2(VP, "x0"), DPMSolver3(VP, "x0")):
        assert moments(Gaussian(1.7, 0.0), solver, log_snr(VP, 4)) == pytest.approx((1.7, 0.0), abs=1e-12)


def test_the_third_order_multistep_is_of_third_order_unless_asked_otherwise():
    assert DPMSolverPP3M() == DPMSolverPP3M(compat=False)
