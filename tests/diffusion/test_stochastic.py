"""Churn and the reverse SDE against exact moments and hand-computed coefficients."""

import math

import pytest
import torch

from oracles.gaussian import Gaussian, moments, slopes
from ornstein.diffusion.dpm import DPMSolverPP2M
from ornstein.diffusion.grid import karras, log_snr, uniform
from ornstein.diffusion.process import Flow, Karras, LinearVP
from ornstein.diffusion.solver import DDPM, Euler, Heun, sample
from ornstein.diffusion.stochastic import Churn, EulerMaruyama
from ornstein.types import Point

DOUBLE = torch.float64
HALF = Gaussian(0.0, 0.5)

CHURN_TABLE = [
    ((0.0, 0.0, math.inf, 1.0), {18: 0.278388, 32: 0.257899, 64: 0.251825, 256: 0.250095}),
    ((40.0, 0.05, 50.0, 1.003), {18: 0.318152, 32: 0.277861, 64: 0.262043, 256: 0.252494}),
    ((80.0, 0.05, 50.0, 1.0), {18: 0.316254, 32: 0.276202, 64: 0.260478, 256: 0.251889}),
    ((40.0, 0.05, 50.0, 1.007), {18: 0.320692, 32: 0.280082, 64: 0.264138, 256: 0.254512}),
]


@pytest.mark.parametrize(("setting", "variances"), CHURN_TABLE)
def test_churn_has_the_published_variances(setting, variances):
    amount, low, high, inflate = setting
    for n, variance in variances.items():
        solver = Churn(Heun(), Karras(), amount / n, low, high, inflate)
        assert moments(HALF, solver, karras(Karras(), n), start=(0.0, 6400.0))[1] == pytest.approx(variance, abs=1e-6)


def test_churn_without_limits_has_the_published_variances_but_for_the_last_step():
    """EDM also churns before the step to sigma = 0, which here is a plain denoise: 1e-5 of the variance."""
    for n, variance in {18: 0.316095, 32: 0.271577, 64: 0.255077, 256: 0.250305}.items():
        solver = Churn(Heun(), Karras(), 10 / n)
        got = moments(HALF, solver, karras(Karras(), n), start=(0.0, 6400.0))[1]
        assert got == pytest.approx(variance, rel=3e-5)


def test_without_churn_the_solver_is_left_as_it_is():
    grid, x = karras(Karras(), 6), torch.linspace(-80, 80, 5, dtype=DOUBLE)[:, None]
    plain = sample(HALF.denoise, x, grid, solver=Heun())
    noise = torch.ones(5, 5, 1, dtype=DOUBLE)
    for solver in (
        Churn(Heun(), Karras(), 0.0),
        Churn(Heun(), Karras(), 0.4, 100.0),
        Churn(Heun(), Karras(), 0.4, 0.0, 1e-3),
    ):
        torch.testing.assert_close(
            sample(HALF.denoise, x, grid, solver=solver, noise=noise), plain, rtol=1e-10, atol=1e-10
        )


def level(process, t: float) -> Point:
    time = torch.tensor([t], dtype=DOUBLE)
    return Point(time, *(rate[:, None] for rate in process.rates(time)))


@pytest.mark.parametrize(("churn", "rise"), [(0.25, 0.25), (0.9, math.sqrt(2) - 1)])
@pytest.mark.parametrize("process", [Karras(), LinearVP()], ids=lambda v: type(v).__name__)
def test_churn_raises_the_level_and_adds_the_noise_of_the_rise(process, churn, rise):
    """In x / alpha: ratio (1 + rise), noise inflate sqrt(ratio_hat^2 - ratio^2)."""
    now, then = level(process, 0.6), level(process, 0.5)
    ratio = (now.sigma / now.alpha).item()
    keep, kick, t, alpha, sigma, *rest = Churn(Euler(), process, churn, inflate=1.5).row(now, then)
    assert (sigma / alpha).item() == pytest.approx(ratio * (1 + rise))
    torch.testing.assert_close(torch.stack([alpha, sigma]), torch.stack(process.rates(t)))
    assert keep.item() == pytest.approx((alpha / now.alpha).item())
    expected = 1.5 * alpha.item() * math.sqrt((ratio * (1 + rise)) ** 2 - ratio**2)
    assert kick.item() == pytest.approx(expected)
    for got, own in zip(rest, Euler().row(Point(t, alpha, sigma), then), strict=True):
        assert got.item() == pytest.approx(own.item())


@pytest.mark.parametrize(
    ("low", "high", "churned"), [(0.0, 1.0, True), (1.0, 2.0, True), (1.1, 2.0, False), (0.1, 0.9, False)]
)
def test_churn_keeps_within_its_limits(low, high, churned):
    """At sigma / alpha = 1 exactly: the limits belong to the range."""
    half = torch.tensor([[math.sqrt(0.5)]], dtype=DOUBLE)
    now = Point(torch.tensor([0.2], dtype=DOUBLE), half, half)
    kick = Churn(Euler(), LinearVP(), 0.1, low, high).row(now, level(LinearVP(), 0.1))[1].item()
    assert (kick > 0.1) == churned and (kick == 0) != churned


def test_churn_calls_the_network_at_the_raised_level():
    seen = []

    def denoise(x, point):
        seen.append(((point.sigma / point.alpha).item(), x.item()))
        return 0 * x

    now, then = level(Karras(), 0.6), level(Karras(), 0.5)
    solver, x = Churn(Heun(), Karras(), 0.25), torch.full((1, 1), 3.0, dtype=DOUBLE)
    s = now.sigma.item()
    solver.step(denoise, x, now, then, 2 * torch.ones_like(x), ())
    assert [ratio for ratio, _ in seen] == pytest.approx([1.25 * s, then.sigma.item()])
    assert seen[0][1] == pytest.approx(3.0 + 2.0 * math.sqrt((1.25 * s) ** 2 - s**2))
    assert solver.calls == 2 and solver.draws == 1 and Churn(Euler(), Karras(), 0.1).calls == 1
    seen.clear()
    solver.step(denoise, x, now, then, None, ())
    assert seen[0][1] == pytest.approx(3.0)


def test_churn_carries_the_memory_of_its_solver():
    solver = Churn(DPMSolverPP2M(), Karras(), 0.0)
    grid, x = karras(Karras(), 6), torch.linspace(-80, 80, 5, dtype=DOUBLE)[:, None]
    got = sample(HALF.denoise, x, grid, solver=solver, noise=torch.ones(5, 5, 1, dtype=DOUBLE))
    torch.testing.assert_close(got, sample(HALF.denoise, x, grid, solver=DPMSolverPP2M()), rtol=1e-9, atol=1e-9)


def test_churn_refuses_solvers_that_draw_and_negative_amounts():
    with pytest.raises(ValueError, match="draws noise itself"):
        Churn(DDPM(), Karras(), 0.1)
    with pytest.raises(ValueError, match=r"churn = -0\.1"):
        Churn(Heun(), Karras(), -0.1)
    assert Churn(Heun(), Karras(), 0.0).churn == 0


def test_churn_before_any_signal_is_finite():
    kick = Churn(Euler(), Flow(), 0.2).row(level(Flow(), 1.0), level(Flow(), 0.8))
    assert all(torch.isfinite(entry).all() for entry in kick)


def test_the_reverse_sde_converges_with_the_published_errors():
    """Exact moments on VP, data N(1, 1/4), from N(0, 1): the error of the variance at t = 1e-3, weak order 1."""
    data, vp = Gaussian(1.0, 0.5), LinearVP()
    grids = [uniform(vp, n + 1, end=1e-3) for n in (50, 100, 200, 400, 800, 1600)]
    true = data.var(grids[0].alpha[-1], grids[0].sigma[-1]).item()
    errors = [moments(data, EulerMaruyama(vp), grid, finish=False)[1] - true for grid in grids]
    assert errors == pytest.approx([8.17e-3, 3.82e-3, 1.85e-3, 9.09e-4, 4.51e-4, 2.24e-4], rel=5e-3)
    assert slopes(errors)[-1] == pytest.approx(1.01, abs=0.01)


def test_without_noise_it_is_eulers_method_in_time():
    data, vp = Gaussian(1.0, 0.5), LinearVP()
    grids = [uniform(vp, n + 1, end=1e-3) for n in (50, 100, 200, 400, 800)]
    start = (grids[0].alpha[0].item(), data.var(grids[0].alpha[0], grids[0].sigma[0]).item())
    true = data.var(grids[0].alpha[-1], grids[0].sigma[-1]).item()
    errors = [moments(data, EulerMaruyama(vp, 0.0), grid, start=start, finish=False)[1] - true for grid in grids]
    assert errors == pytest.approx([-4.16e-3, -2.18e-3, -1.11e-3, -5.64e-4, -2.83e-4], rel=5e-3)


def test_the_reverse_sde_by_hand():
    """VE from sigma = 2 with d sigma / dt = 2 ln(40000): f = 0, g^2 = 2 sigma^2 ln(40000), dt = -0.01."""
    ve, grow = Karras(0.002, 80.0), math.log(40000.0)
    t = (math.log(2.0) - math.log(0.002)) / grow
    now, then = level(ve, t), level(ve, t - 0.01)
    for noise in (0.0, 0.5, 1.0):
        keep, pull, kick = (entry.item() for entry in EulerMaruyama(ve, noise).row(now, then))
        share = (1 + noise**2) * grow * 0.01
        assert (keep, pull, kick) == pytest.approx((1 - share, share, noise * 2.0 * math.sqrt(2 * grow * 0.01)))
    assert EulerMaruyama(ve).draws == EulerMaruyama(ve, 0.0).draws == 1


def test_the_reverse_sde_follows_the_drift_of_the_path():
    """VP: f = -beta / 2 and g^2 = beta = 10.05 at t = 1/2; keep = 1 + dt (f + g^2 / sigma^2)."""
    vp, dt = LinearVP(), -0.01
    now, then = level(vp, 0.5), level(vp, 0.49)
    alpha, sigma = now.alpha.item(), now.sigma.item()
    keep, pull, kick = (entry.item() for entry in EulerMaruyama(vp).row(now, then))
    assert keep == pytest.approx(1 + dt * (-10.05 / 2 + 10.05 / sigma**2))
    assert pull == pytest.approx(-dt * 10.05 * alpha / sigma**2)
    assert kick == pytest.approx(math.sqrt(10.05 * 0.01))


def test_churn_on_preserving_paths_keeps_the_marginal():
    """Exact denoiser, many steps: the variance is that of the data, with and without churn."""
    vp = LinearVP()
    grid = log_snr(vp, 200)
    true = HALF.var(grid.alpha[-1], grid.sigma[-1]).item()
    start = (0.0, HALF.var(grid.alpha[0], grid.sigma[0]).item())
    got = moments(HALF, Churn(Heun(), vp, 0.05), grid, start=start, finish=False)[1]
    assert got == pytest.approx(true, rel=2e-3)
