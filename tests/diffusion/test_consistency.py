"""Consistency models against Gaussian data, for which paths and fixed points are known in closed form."""

import math
from itertools import pairwise

import pytest
import torch

from ornstein.diffusion.consistency import (
    Boundary,
    Renoise,
    adjacent,
    averaging_rate_at,
    consistency_error,
    improved_levels_at,
    index_law,
    levels_at,
    pseudo_huber,
)
from ornstein.diffusion.denoiser import Denoiser, LogSigma
from ornstein.diffusion.grid import Grid, at, karras
from ornstein.diffusion.process import Karras, corrupt, point
from ornstein.diffusion.sampler import Sampler
from ornstein.noise import draw, generator
from ornstein.types import Point

PATH, MEAN, STD, FLOOR = Karras(), 1.0, 0.5, 0.002


def level(*sigma: float) -> Point:
    s = torch.tensor(sigma, dtype=torch.float64)
    return point(PATH, PATH.time(-s.log()), torch.zeros(len(sigma), 1, dtype=torch.float64))


def exact(x: torch.Tensor, where: Point) -> torch.Tensor:
    """Where the path of N(1, 0.5^2) through x ends, at the lowest level."""
    return MEAN + torch.sqrt((STD**2 + FLOOR**2) / (STD**2 + where.sigma**2)) * (x - MEAN)


def test_scalings_have_the_published_values():
    skip, out = Boundary().weights(level(0.002, 0.01, 0.5, 80.0))
    torch.testing.assert_close(
        skip.flatten(), torch.tensor([1, 0.999744, 0.502004, 0.000039]).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        out.flatten(), torch.tensor([0, 0.007998, 0.352139, 0.499978]).double(), atol=1e-6, rtol=0
    )


def test_the_function_is_the_identity_at_the_lowest_level():
    f = Denoiser(lambda x, t, cond: 100 + x, PATH, Boundary(), clock=LogSigma(250.0))  # type: ignore[arg-type]
    x = torch.tensor([[0.3], [-2.0]], dtype=torch.float64)
    torch.testing.assert_close(f(x, level(FLOOR, FLOOR)), x, atol=1e-12, rtol=0)
    assert (f(x, level(0.01, 0.01)) - x).abs().min() > 0.5


def test_targets_and_answers_are_inverse_and_the_gain_is_the_slope():
    b, where = Boundary(), level(0.5, 3.0)
    x0, eps = torch.tensor([[0.4], [-0.7]]).double(), torch.tensor([[1.1], [0.2]]).double()
    x_t = corrupt(x0, where, eps)
    torch.testing.assert_close(b.x0(b.target(x0, where, eps), x_t, where), x0)
    torch.testing.assert_close(
        b.gain(where), 1 / (b.x0(torch.ones(2, 1).double(), x_t, where) - b.x0(x0 * 0, x_t, where))
    )
    torch.testing.assert_close(b.scale(x_t, where) * torch.sqrt(where.sigma**2 + 0.25), x_t)


def test_one_step_of_the_exact_function_gives_the_datas_law():
    where = level(80.0)
    slope = exact(torch.ones(1, 1).double(), where) - exact(torch.zeros(1, 1).double(), where)
    assert slope.item() == pytest.approx(0.00624993, abs=1e-8)
    assert 80 * slope.item() == pytest.approx(0.499994, abs=1e-6)


@pytest.mark.parametrize("sigmas", [[80.0], [80.0, 5.0], [80.0, 5.0, 0.5]])
def test_several_steps_keep_the_variance(sigmas):
    """Closed form: var = slope^2 (var' + sigma^2 - floor^2) at each level; one step ends at 0.249994."""
    steps = [level(s) for s in sigmas]
    now = steps[0].sigma ** 2
    for where, then in zip(steps, [*steps[1:], None], strict=True):
        now = (STD**2 + FLOOR**2) / (STD**2 + where.sigma**2) * now
        if then is not None:
            keep, pull, kick = Renoise(FLOOR).row(where, then)
            assert keep.item() == 0.0
            now = pull**2 * now + kick**2
    assert now.item() == pytest.approx(0.249994 if len(sigmas) == 1 else 0.250004, abs=1e-6)


def test_one_level_is_one_call_and_no_step():
    sampler = Sampler(at(PATH, PATH.time(-torch.tensor([80.0]).log())), Renoise(FLOOR), scale=80.0)
    noise = draw(sampler.needs((1,)), 6, generator("one level"))
    assert set(noise) == {"start"}
    torch.testing.assert_close(sampler(exact, noise), exact(80.0 * noise["start"], level(80.0)).float())


def test_sampling_with_renoise_is_the_papers_algorithm():
    grid = at(PATH, PATH.time(-torch.tensor([80.0, 5.0, 0.5]).log()))
    sampler = Sampler(grid, Renoise(FLOOR), scale=80.0)
    noise = draw(sampler.needs((1,)), 6, generator("renoise"))
    found = sampler(exact, noise)
    x = exact(80.0 * noise["start"], level(80.0))
    for k, sigma in enumerate((5.0, 0.5)):
        x = exact(x + math.sqrt(sigma**2 - FLOOR**2) * noise["steps"][:, k], level(sigma))
    torch.testing.assert_close(found, x.float(), atol=1e-5, rtol=1e-5)


def test_the_fixed_point_of_training_has_the_tabulated_slopes():
    """With infinite data the best slope at the next level is the regression of the target on the noisier point:
    a' = a (s^2 + t t') / (s^2 + t'^2). The loss' own minimum is compared with it, and the table of the whole grid.
    """
    t, later = 0.5, 0.8
    g = generator("fixed point")
    x0 = (MEAN + STD * torch.randn(400_000, 1, generator=g)).double()
    eps = torch.randn(400_000, 1, generator=g).double()
    slope = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    levels = tuple(Point(*(v.expand(len(x0), *v.shape[1:]) for v in level(s))) for s in (later, t))
    error = consistency_error(
        lambda x, _: MEAN + slope * (x - MEAN), lambda x, _: x, x0, eps, levels=(levels[0], levels[1])
    )
    (first,) = torch.autograd.grad(error.mean(), slope, create_graph=True)
    (second,) = torch.autograd.grad(first, slope)
    best = (slope - first / second).item()
    assert best == pytest.approx((STD**2 + t * later) / (STD**2 + later**2), rel=5e-3)
    assert best == pytest.approx(0.73034, abs=2e-3)


@pytest.mark.parametrize(("n", "ratio"), [(2, 0.01025), (5, 0.467271), (18, 0.846086), (80, 0.964667)])
def test_coarse_grids_shrink_the_law(n, ratio):
    sigma = karras(PATH, n).sigma.double().flip(0)
    slope = torch.ones((), dtype=torch.float64)
    for t, later in pairwise(sigma):
        slope = slope * (STD**2 + t * later) / (STD**2 + later**2)
    exact_slope = math.sqrt((STD**2 + FLOOR**2) / (STD**2 + 80.0**2))
    assert (slope / exact_slope).item() == pytest.approx(ratio, rel=2e-4)


def test_no_gradient_reaches_the_target_and_both_see_one_noise():
    w = torch.ones((), requires_grad=True)
    seen: list[torch.Tensor] = []

    def f(x: torch.Tensor, where: Point) -> torch.Tensor:
        seen.append((x - 0.5) / where.sigma)
        return w * x

    x0, eps = torch.full((4, 1), 0.5), torch.randn(4, 1, generator=generator("one"))
    grid = karras(PATH, 10)
    levels = adjacent(grid, torch.tensor([0.0, 0.3, 0.6, 0.999]), x0)
    error = consistency_error(f, f, x0, eps, levels=levels)
    torch.testing.assert_close(seen[0], seen[1], atol=1e-3, rtol=1e-3)
    noisy, clean = x0 + levels[0].sigma * eps, x0 + levels[1].sigma * eps
    (gradient,) = torch.autograd.grad(error.sum(), w)
    torch.testing.assert_close(gradient, (2 * (noisy - clean) * noisy).sum(), rtol=1e-4, atol=1e-4)


def test_neighbours_cover_the_grid():
    grid = Grid(torch.tensor([1.0, 0.5, 0.0]), torch.ones(3), torch.tensor([3.0, 2.0, 1.0]))
    noisier, cleaner = adjacent(grid, torch.tensor([0.0, 0.49, 0.5, 0.999]), torch.zeros(4, 2))
    assert noisier.sigma.flatten().tolist() == [3.0, 3.0, 2.0, 2.0]
    assert cleaner.sigma.flatten().tolist() == [2.0, 2.0, 1.0, 1.0]
    assert noisier.sigma.shape == (4, 1)
    assert cleaner.t.tolist() == [0.5, 0.5, 0.0, 0.0]


def test_schedules_have_the_published_values():
    of = lambda k: levels_at(k, 800_000)  # noqa: E731
    assert [of(k) for k in (0, 1, 100_000, 400_000, 799_999)] == [2, 3, 54, 107, 151]
    rates = [averaging_rate_at(n) for n in (2, 3, 54, 107, 151)]
    assert rates == pytest.approx([1 - 0.81, 0.1, 1 - 0.996032, 1 - 0.998014, 1 - 0.998596], abs=1e-6)
    improved = [improved_levels_at(k, 400_000) for k in (0, 49_999, 50_000, 100_000, 200_000, 350_000)]
    assert improved == [11, 11, 21, 41, 161, 1281]


def test_the_index_law_and_the_huber_constant():
    law = index_law(karras(PATH, 11).sigma.flip(0).double())
    expected = [0.06263, 0.18174, 0.24550, 0.21349, 0.14245, 0.08060, 0.04108, 0.01958, 0.00894, 0.00398]
    torch.testing.assert_close(law, torch.tensor(expected).double(), atol=1e-5, rtol=0)
    for size, c in ((2, 0.000764), (3072, 0.02993)):
        assert pseudo_huber(torch.tensor(0.0), size).item() == pytest.approx(0.0, abs=1e-9)
        far = torch.tensor(100.0, dtype=torch.float64)
        assert 10 - pseudo_huber(far, size).item() == pytest.approx(c, rel=2e-3)
