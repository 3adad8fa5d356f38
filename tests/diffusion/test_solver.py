"""DDPM, DDIM, Euler and Heun against closed forms: tables of reference values, and each coefficient by hand."""

import math

import pytest
import torch

from oracles.gaussian import MIXTURE, Gaussian, moments, normal_quantiles, slopes, transport_error
from ornstein.diffusion.grid import at, karras, strided, uniform
from ornstein.diffusion.process import DiscreteVP, Flow, Karras, LinearVP, point
from ornstein.diffusion.solver import DDIM, DDPM, Euler, Heun, sample
from ornstein.types import Point

DOUBLE = torch.float64
HALF, UNIT = Gaussian(1.0, 0.5), Gaussian(0.0, 1.0)
THOUSAND = DiscreteVP(1000, "linear")


def level(alpha: float, sigma: float) -> Point:
    return Point(*(torch.tensor(v, dtype=DOUBLE) for v in ([0.5], [[alpha]], [[sigma]])))


NOW, THEN = level(0.6, 0.8), level(0.8, 0.6)
"""Here exp(-h) = 0.6 * 0.6 / (0.8 * 0.8) = 9 / 16 and the lost share is 1 - 81 / 256 = 175 / 256."""

CLEAN = level(1.0, 1e-300)


def row(solver) -> list[float]:
    return [entry.item() for entry in solver.row(NOW, THEN)]


def test_ddim_weights_by_hand():
    """eta = 0: keep = 0.6 / 0.8, pull = 0.8 - 0.6 * 0.75."""
    assert row(DDIM()) == pytest.approx([0.75, 0.35, 0.0])
    fresh = 0.25 * 175 / 256
    keep = 0.75 * math.sqrt(1 - fresh)
    assert row(DDIM(0.5)) == pytest.approx([keep, 0.8 - 0.6 * keep, 0.6 * math.sqrt(fresh)])
    assert row(Euler()) == pytest.approx([0.75, 0.35, 0.0])


def test_ddpm_weights_by_hand():
    """beta = 1 - 0.36 / 0.64: c1 = 0.8 beta / 0.64, c2 = 0.75 * 0.36 / 0.64, q = beta 0.36 / 0.64."""
    beta = 1 - 0.36 / 0.64
    c1, c2, small = 0.8 * beta / 0.64, 0.75 * 0.36 / 0.64, beta * 0.36 / 0.64
    assert row(DDPM()) == pytest.approx([c2, c1, math.sqrt(small)])
    assert row(DDPM("large")) == pytest.approx([c2, c1, math.sqrt(beta)])
    assert row(DDPM(0.25)) == pytest.approx([c2, c1, math.sqrt(small**0.75 * beta**0.25)])
    assert row(DDPM(0.0)) == pytest.approx(row(DDPM("small")))
    assert row(DDPM(1.0)) == pytest.approx(row(DDPM("large")))
    assert row(DDPM("large", 0.3))[2] == pytest.approx(0.3 * math.sqrt(beta))


def test_optimal_variance_by_hand():
    """Data of variance 4: Var[x0 | x_t] = 4 * 0.64 / (0.36 * 4 + 0.64)."""
    beta = 1 - 0.36 / 0.64
    c1, small = 0.8 * beta / 0.64, beta * 0.36 / 0.64
    doubt = 4 * 0.64 / (0.36 * 4 + 0.64)
    assert row(DDPM("optimal", 0.5, 2.0))[2] == pytest.approx(0.5 * math.sqrt(small + c1**2 * doubt))
    assert row(DDPM("optimal"))[2] == pytest.approx(math.sqrt(beta)), "unit data: the optimum is the large variance"


def test_heun_step_by_hand():
    """x = 1, x0 = 2 then 3: slopes 0.2 x0 - 0.2 eps with eps = (x - alpha x0) / sigma at both ends."""
    answers = iter([2.0, 3.0])
    start = torch.ones(1, 1, dtype=DOUBLE)
    x, _ = Heun().step(lambda x, p: torch.full_like(x, next(answers)), start, NOW, THEN, None, ())
    first = 0.2 * 2 - 0.2 * (1 - 0.6 * 2) / 0.8
    euler = 1 + first
    second = 0.2 * 3 - 0.2 * (euler - 0.8 * 3) / 0.6
    assert x.item() == pytest.approx(1 + 0.5 * (first + second))


@pytest.mark.parametrize(
    "solver", [DDIM(), DDIM(0.4), DDPM(), DDPM("large", 0.7), Euler()], ids=lambda v: type(v).__name__
)
def test_affine_steps_add_what_their_row_says(solver):
    keep, pull, kick = row(solver)
    x, z = torch.tensor([[3.0]], dtype=DOUBLE), torch.tensor([[-2.0]], dtype=DOUBLE)
    seen = []

    def denoise(x_t, point):
        seen.append((x_t.item(), point))
        return 5 * torch.ones_like(x_t)

    assert solver.step(denoise, x, NOW, THEN, z, ())[0].item() == pytest.approx(3 * keep + 5 * pull - 2 * kick)
    assert solver.step(denoise, x, NOW, THEN, None, ())[0].item() == pytest.approx(3 * keep + 5 * pull)
    assert seen == [(3.0, NOW)] * 2


@pytest.mark.parametrize("solver", [DDIM(), DDIM(0.6), DDPM(), Euler(), Heun()], ids=lambda v: type(v).__name__)
def test_one_step_takes_levels_of_its_own_for_each_sample(solver):
    x = torch.tensor([[1.0, -2.0], [0.3, 0.5], [2.0, 1.0]], dtype=DOUBLE)
    z = torch.ones_like(x)
    times = torch.tensor([[0.9, 0.5, 0.2], [0.6, 0.4, 0.1]], dtype=DOUBLE)
    now, then = (point(LinearVP(), t, x) for t in times)
    together, _ = solver.step(HALF.denoise, x, now, then, z, solver.init(x))
    for i in range(3):
        one = slice(i, i + 1)
        apart = [Point(*(entry[one] for entry in each)) for each in (now, then)]
        alone, _ = solver.step(HALF.denoise, x[one], *apart, z[one], solver.init(x[one]))
        torch.testing.assert_close(together[one], alone, rtol=1e-13, atol=0)


DDPM_TABLE = [
    (THOUSAND, HALF, 0.99999, 0.246125, 0.250752, 0.249900),
    (THOUSAND, UNIT, 0.0, 0.991067, 0.999900, 0.999900),
    (DiscreteVP(1000, "cosine"), HALF, 1.0, 0.247997, 0.250419, 0.249959),
    (DiscreteVP(20, "cosine"), HALF, 0.999998, 0.186885, 0.266073, 0.242194),
    (DiscreteVP(20, "cosine"), UNIT, 0.0, 0.811793, 0.992007, 0.992007),
    (DiscreteVP(5, "vp"), HALF, 0.99839, 0.087259, 0.196672, 0.126626),
    (DiscreteVP(5, "vp"), UNIT, 0.0, 0.456202, 0.804125, 0.804125),
]


@pytest.mark.parametrize(("chain", "data", "mean", "small", "large", "optimal"), DDPM_TABLE)
def test_ddpm_has_the_published_moments(chain, data, mean, small, large, optimal):
    grid = uniform(chain, chain.steps)
    for variance, expected in (("small", small), ("large", large), ("optimal", optimal)):
        got = moments(data, DDPM(variance, data_std=data.std), grid)
        assert got == pytest.approx((mean, expected), abs=1.5e-6 if mean != 0.99999 else 3e-6)


@pytest.mark.parametrize(("chain", "data"), [case[:2] for case in DDPM_TABLE])
def test_the_optimal_variance_returns_that_of_the_data(chain, data):
    """With the noise that the last denoise leaves out put back; what T leaves of the signal is the rest."""
    grid = uniform(chain, chain.steps)
    _, var = moments(data, DDPM("optimal", data_std=data.std), grid)
    last = data.posterior_var(grid.alpha[-1], grid.sigma[-1]).item()
    assert var + last == pytest.approx(data.std**2, abs=2.5e-6)


@pytest.mark.parametrize(
    "solver", [DDIM(), DDIM(0.5), DDPM(), DDPM("large"), Euler(), Heun()], ids=lambda v: type(v).__name__
)
@pytest.mark.parametrize("levels", [1, 3])
def test_a_data_point_is_met_exactly(solver, levels):
    got = moments(Gaussian(1.7, 0.0), solver, strided(THOUSAND, levels))
    assert got == pytest.approx((1.7, 0.0), abs=1e-12)


STRIDES = (10, 20, 50, 100, 200, 500)
DDIM_TABLE = [
    ("uniform", HALF, [0.37413, 0.43373, 0.47244, 0.48598, 0.49289, 0.49709]),
    ("quad", HALF, [0.42452, 0.46278, 0.48527, 0.49270, 0.49634, 0.49836]),
    ("trailing", HALF, [0.36995, 0.43137, 0.47140, 0.48545, 0.49263, 0.49701]),
    ("linspace", HALF, [0.36161, 0.43045, 0.47192, 0.48585, 0.49287, 0.49709]),
    ("uniform", UNIT, [0.83170, 0.91253, 0.96408, 0.98185, 0.99086, 0.99630]),
    ("trailing", UNIT, [0.82937, 0.91129, 0.96355, 0.98158, 0.99073, 0.99627]),
]
MEANS = {
    "uniform": [0.99385, 0.99553, 0.99637, 0.99662, 0.99674, 0.99681],
    "quad": [0.98352, None, None, None, None, 0.98065],
    "trailing": [0.99765, None, None, None, None, 0.99684],
}


@pytest.mark.parametrize(("spacing", "data", "stds"), DDIM_TABLE)
def test_ddim_has_the_published_deviations(spacing, data, stds):
    means = MEANS.get(spacing, [None] * 6) if data is HALF else [0.0] * 6
    for n, std, mean in zip(STRIDES, stds, means, strict=True):
        got_mean, got_var = moments(data, DDIM(), strided(THOUSAND, n, spacing))
        assert math.sqrt(got_var) == pytest.approx(std, abs=1.1e-5)
        assert mean is None or got_mean == pytest.approx(mean, abs=6e-6)


ETA_TABLE = [
    (0.2, HALF, {10: 0.37307, 20: 0.43251, 50: 0.47155, 100: 0.48541, 1000: 0.49841}),
    (0.5, HALF, {10: 0.36708, 20: 0.42568, 50: 0.46665, 100: 0.48226, 1000: 0.49798}),
    (1.0, HALF, {10: 0.33326, 20: 0.39146, 50: 0.44412, 100: 0.46826, 1000: 0.49611}),
    (1.0, UNIT, {10: 0.74041, 20: 0.84305, 50: 0.92598, 100: 0.96000, 1000: 0.99552}),
]


@pytest.mark.parametrize(("eta", "data", "stds"), ETA_TABLE)
def test_ddim_has_the_published_deviations_with_noise(eta, data, stds):
    for n, std in stds.items():
        assert math.sqrt(moments(data, DDIM(eta), strided(THOUSAND, n, "uniform"))[1]) == pytest.approx(std, abs=6e-6)


def test_ddim_at_eta_one_is_ddpm():
    grid = uniform(THOUSAND, 1000)
    now, then = Point(*(e[:-1] for e in grid)), Point(*(e[1:] for e in grid))
    for one, other in zip(DDIM(1.0).row(now, then), DDPM("small").row(now, then), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
    beta = 1 - (grid.alpha[:-1] / grid.alpha[1:]) ** 2
    c1 = grid.alpha[1:] * beta / grid.sigma[:-1] ** 2
    torch.testing.assert_close(DDIM(1.0).row(now, then)[1], c1, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_ddim_is_the_ancestral_euler_step_of_k_diffusion(eta):
    """sigma_up = eta sqrt(s'^2 (s^2 - s'^2) / s^2), Euler to sqrt(s'^2 - sigma_up^2), then noise."""
    s, then = 3.0, 1.2
    up = eta * math.sqrt(then**2 * (s**2 - then**2) / s**2)
    down = math.sqrt(then**2 - up**2)
    keep, pull, kick = (entry.item() for entry in DDIM(eta).row(level(1.0, s), level(1.0, then)))
    assert (keep, pull, kick) == pytest.approx((1 + (down - s) / s, -(down - s) / s, up))


@pytest.mark.parametrize(("n", "error"), [(10, 0.504), (20, 0.273), (50, 0.116), (100, 0.0591), (200, 0.0299)])
def test_encoding_and_decoding_come_back(n, error):
    """DDIM upwards, then downwards: first order in the number of steps."""
    x0 = torch.linspace(-1.8, 1.6, 35, dtype=DOUBLE)[:, None]
    grid = strided(THOUSAND, n, "uniform")
    code = sample(MIXTURE.denoise, x0, grid.flipped(), finish=False)
    assert (sample(MIXTURE.denoise, code, grid, finish=False) - x0).abs().max().item() == pytest.approx(error, rel=4e-3)


def test_the_output_of_ddim_is_a_function_of_its_start():
    start = torch.linspace(-1.8, 1.6, 35, dtype=DOUBLE)[:, None]
    full = sample(MIXTURE.denoise, start, strided(THOUSAND, 1000))
    gaps = [(sample(MIXTURE.denoise, start, strided(THOUSAND, n)) - full).abs().max().item() for n in (10, 20, 50, 100)]
    assert all(order == pytest.approx(1.0, abs=0.15) for order in slopes([gaps[1], gaps[3]], 5.0))
    assert gaps == sorted(gaps, reverse=True)


def edm_error(solver, n: int, data, start: torch.Tensor, rho: float = 7.0) -> float:
    """Distance from the exact map of x(80) to clean data."""
    grid = karras(Karras(), n, rho)
    exact = data.transport(start, (grid.alpha[0], grid.sigma[0]), (grid.alpha[0], 0 * grid.sigma[0]))
    return (sample(data.denoise, start, grid, solver=solver) - exact).abs().max().item()


def test_heun_and_euler_have_the_published_errors_on_a_gaussian():
    start = torch.tensor([[-100.0], [0.0], [100.0]], dtype=DOUBLE)
    heun = [0.9568, 0.1756, 3.489e-2, 7.710e-3, 1.812e-3, 4.362e-4]
    euler = [0.3363, 0.1900, 9.716e-2, 4.923e-2, 2.477e-2, 1.243e-2]
    for n, one, other in zip((5, 9, 18, 36, 72, 144), heun, euler, strict=True):
        assert edm_error(Heun(), n, HALF, start) == pytest.approx(one, rel=2e-3)
        assert edm_error(Euler(), n, HALF, start) == pytest.approx(other, rel=2e-3)


def test_heun_and_euler_have_the_published_errors_on_a_mixture():
    start = 80 * normal_quantiles(64)
    heun = [edm_error(Heun(), n, MIXTURE, start) for n in (9, 18, 36, 72, 144, 288)]
    euler = [edm_error(Euler(), n, MIXTURE, start) for n in (9, 18, 36, 72, 144, 288)]
    assert heun == pytest.approx([0.479, 0.0827, 0.0175, 4.05e-3, 9.68e-4, 2.32e-4], rel=0.01)
    assert euler == pytest.approx([0.453, 0.221, 0.111, 0.0562, 0.0285, 0.0144], rel=0.01)
    assert slopes(heun) == pytest.approx([2.53, 2.24, 2.11, 2.06, 2.06], abs=0.02)
    rhos = [edm_error(Heun(), 18, MIXTURE, start, rho) for rho in (1.0, 3.0, 5.0, 7.0, 10.0, 20.0)]
    assert rhos == pytest.approx([4.54, 0.127, 0.0877, 0.0827, 0.0829, 0.0877], rel=0.01)


def test_euler_and_heun_have_the_published_errors_on_straight_paths():
    """The ends of f-flow-matching's table, which evaluates the slope at the data: approached by t = 1e-8."""
    steps = (4, 8, 16, 32, 64, 128)
    grids = [uniform(Flow(), n + 1, end=1e-8) for n in steps]
    euler, heun = ([transport_error(MIXTURE, s, g, normal_quantiles(64)) for g in grids] for s in (Euler(), Heun()))
    assert euler == pytest.approx([0.469, 0.247, 0.128, 0.0649, 0.0327, 0.0164], rel=0.01)
    assert heun == pytest.approx([0.0743, 0.0197, 5.03e-3, 1.26e-3, 3.15e-4, 7.86e-5], rel=0.01)


def test_euler_steps_of_a_flow_end_with_the_denoise():
    """One step returns the data's mean; N steps have the published deviations and the exact mean."""
    out = sample(MIXTURE.denoise, normal_quantiles(8), uniform(Flow(), 1), solver=Euler())
    torch.testing.assert_close(out, torch.full((8, 1), 0.26, dtype=DOUBLE), rtol=1e-12, atol=0)
    for n, std in {1: 0.0, 2: 0.2, 4: 0.340541, 8: 0.414785, 16: 0.455683, 64: 0.488555}.items():
        mean, var = moments(HALF, Euler(), uniform(Flow(), n))
        assert (mean, math.sqrt(var)) == pytest.approx((1.0, std), abs=1e-6)


@pytest.mark.parametrize(
    "solver", [DDIM(), DDIM(0.5), DDIM(1.0), DDPM(), DDPM("large"), Euler(), Heun()], ids=lambda v: type(v).__name__
)
def test_steps_from_pure_noise_are_finite_in_single_precision(solver):
    """alpha = 0 at t = 1: the old x then only holds noise."""
    x, noise = normal_quantiles(9).float(), torch.ones(4, 9, 1)
    out = sample(MIXTURE.denoise, x, uniform(Flow(), 5), solver=solver, noise=noise)
    assert torch.isfinite(out).all() and out.abs().max() < 10
    exact = sample(MIXTURE.denoise, x.double(), uniform(Flow(), 5), solver=solver, noise=noise.double())
    torch.testing.assert_close(out.double(), exact, rtol=1e-4, atol=1e-5)


def test_ancestral_steps_from_pure_noise_draw_afresh():
    """No x is kept where it holds nothing of the data and all its noise is replaced."""
    keep, pull, kick = (entry.item() for entry in DDIM(1.0).row(level(0.0, 1.0), level(0.3, 0.7)))
    assert (keep, pull, kick) == pytest.approx((0.0, 0.3, 0.7))


@pytest.mark.parametrize(
    ("make", "named"),
    [(lambda: DDIM(-0.1), "eta = -0.1"), (lambda: DDIM(1.1), "eta = 1.1"), (lambda: DDPM(1.5), "variance = 1.5"),
     (lambda: DDPM(-0.5), "variance = -0.5")],
)  # fmt: skip
def test_solvers_refuse_settings_out_of_range(make, named):
    with pytest.raises(ValueError, match=named):
        make()


def test_settings_at_the_ends_of_their_ranges_are_allowed():
    assert DDIM(0.0).draws == 0 and DDIM(0.01).draws == DDIM(1.0).draws == 1
    assert DDPM(0.0).draws == DDPM(1.0).draws == DDPM("optimal").draws == 1
    assert Euler().draws == Heun().draws == 0


def test_a_step_to_the_last_bit_of_noise_is_the_denoise():
    for solver in (DDIM(), DDIM(1.0), DDPM()):
        x, _ = solver.step(HALF.denoise, torch.ones(1, 1, dtype=DOUBLE), NOW, CLEAN, None, ())
        assert x.item() == pytest.approx(HALF.denoise(torch.ones(1, 1, dtype=DOUBLE), NOW).item())


def test_grids_of_any_times_serve():
    """Uneven steps: the exact Gaussian map is met within the local error of each step."""
    grid = at(LinearVP(), torch.tensor([0.5, 0.49, 0.45], dtype=DOUBLE))
    assert transport_error(HALF, Heun(), grid, normal_quantiles(4)) < 1e-4
