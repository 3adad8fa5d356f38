"""Loss weights and the variational bound against the published numbers for Gaussian data."""

import math

import pytest
import torch

from oracles.gaussian import Gaussian
from ornstein.diffusion.bound import data_bound, min_snr, start_bound, step_bound
from ornstein.diffusion.denoiser import X0, Eps, Precondition, Score, V, Velocity
from ornstein.diffusion.grid import Grid, uniform
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.solver import DDIM, DDPM
from ornstein.types import Point

DOUBLE = torch.float64
THOUSAND = DiscreteVP(1000, "linear")


def nodes(chain: DiscreteVP, k: list[int]) -> Point:
    t = torch.tensor(k, dtype=DOUBLE) / chain.steps
    return Point(t, *chain.rates(t))


def test_min_snr_has_the_published_weights_on_eps():
    assert min_snr(Eps(), nodes(THOUSAND, [1, 100, 1000])).tolist() == pytest.approx(
        [5.0005e-4, 0.574023, 1.0], rel=2e-6
    )


def test_min_snr_on_every_parameterisation():
    """At alpha^2 = 0.8, sigma^2 = 0.2 the signal-to-noise ratio is 4; below a limit of 3 it is cut to 3."""
    at = Point(*(torch.tensor([v], dtype=DOUBLE) for v in (0.5, math.sqrt(0.8), math.sqrt(0.2))))
    for limit, weight in ((5.0, 4.0), (3.0, 3.0)):
        assert min_snr(X0(), at, limit).item() == pytest.approx(weight)
        assert min_snr(Eps(), at, limit).item() == pytest.approx(weight / 4)
        assert min_snr(V(), at, limit).item() == pytest.approx(weight / 5)
        assert min_snr(Score(), at, limit).item() == pytest.approx(weight * 0.2 / 4)
        gain = (math.sqrt(0.8) + math.sqrt(0.2)) ** 2 / 0.2
        assert min_snr(Velocity(), at, limit).item() == pytest.approx(weight / gain)
        assert min_snr(Precondition(2.0), at, limit).item() == pytest.approx(weight * 0.2 * 4 / (0.2 + 0.8 * 4))


def bound(chain: DiscreteVP, data: Gaussian, variance: str) -> float:
    """The whole bound for the exact denoiser, averaged over x0 and x_t, in nats per dimension."""
    grid = uniform(chain, chain.steps)
    now, then = Point(*(e[:-1] for e in grid)), Point(*(e[1:] for e in grid))
    doubt = data.posterior_var(grid.alpha, grid.sigma)
    q = DDPM(variance, data_std=data.std).row(now, then)[2] ** 2
    first = {"small": lambda: q[-1:], "large": lambda: grid.sigma[-1:] ** 2, "optimal": lambda: doubt[-1:]}[variance]()
    start = start_bound(torch.tensor([data.std], dtype=DOUBLE), Point(*(e[:1] for e in grid)))
    return (
        step_bound(doubt[:-1].sqrt(), q, now, then).sum() + data_bound(doubt[-1:].sqrt(), first) + start.sum()
    ).item()


QUARTER, UNIT = Gaussian(0.0, 0.5), Gaussian(0.0, 1.0)


@pytest.mark.parametrize(
    ("chain", "data", "variance", "nats"),
    [
        (THOUSAND, QUARTER, "large", 0.726884),
        (DiscreteVP(1000, "cosine"), QUARTER, "large", 0.726403),
        (DiscreteVP(20, "cosine"), QUARTER, "large", 0.755366),
        (THOUSAND, UNIT, "large", 1.418939),
        (DiscreteVP(5), UNIT, "large", 1.418939),
        (THOUSAND, QUARTER, "small", 1.295717),
        (DiscreteVP(1000, "cosine"), QUARTER, "small", 1.255785),
        (DiscreteVP(20, "cosine"), QUARTER, "small", 1.554059),
        (THOUSAND, QUARTER, "optimal", 0.725791),
        (DiscreteVP(20, "cosine"), QUARTER, "optimal", 0.725791),
        (DiscreteVP(5), UNIT, "optimal", 1.418939),
    ],
)
def test_the_bound_has_the_published_values(chain, data, variance, nats):
    """With the optimal variance it is the entropy of the data for every chain."""
    assert bound(chain, data, variance) == pytest.approx(nats, abs=2e-5)


def test_terms_by_hand():
    now, then = nodes(DiscreteVP(5), [4]), nodes(DiscreteVP(5), [3])
    _, c1, std = (entry.item() for entry in DDIM(1.0).row(now, then))
    got = step_bound(torch.tensor([2.0], dtype=DOUBLE), torch.tensor([0.7], dtype=DOUBLE), now, then).item()
    assert got == pytest.approx(0.5 * (math.log(0.7) - 2 * math.log(std) - 1 + (std**2 + (2 * c1) ** 2) / 0.7))
    at = Point(*(torch.tensor([v], dtype=DOUBLE) for v in (1.0, 0.3, 0.9)))
    expected = 0.5 * (0.81 + 0.36 - 1 - math.log(0.81))
    assert start_bound(torch.tensor([2.0], dtype=DOUBLE), at).item() == pytest.approx(expected)
    last = data_bound(torch.tensor([2.0], dtype=DOUBLE), torch.tensor([0.7], dtype=DOUBLE)).item()
    assert last == pytest.approx(0.5 * (math.log(2 * math.pi * 0.7) + 4 / 0.7))


def test_the_learned_interpolation_has_the_published_optimum():
    """The share v of log q between small and large at which it is the optimal variance."""
    grid = uniform(THOUSAND, 1000)
    at = {k: Grid(*(e[[1000 - k, 1001 - k]] for e in grid)) for k in (2, 10, 100, 500, 1000)}
    for data, expected in ((QUARTER, [0.99954, 0.99477, 0.76561, 0.26574, 0.25001]), (UNIT, [1.0] * 5)):
        for pair, v in zip(at.values(), expected, strict=True):
            now, then = Point(*(e[:1] for e in pair)), Point(*(e[1:] for e in pair))
            best = DDPM("optimal", data_std=data.std).row(now, then)[2]
            torch.testing.assert_close(DDPM(v).row(now, then)[2], best, rtol=2e-4, atol=0)


@pytest.mark.parametrize(
    ("data", "eps", "x0", "v"), [(UNIT, 0.275513, 0.724487, 1.0), (QUARTER, 0.173053, 0.206737, 0.379790)]
)
def test_the_smallest_losses_are_the_published_ones(data, eps, x0, v):
    """Mean over the chain of gain^2 Var[x0 | x_t]."""
    at = nodes(THOUSAND, list(range(1, 1001)))
    doubt = data.posterior_var(at.alpha, at.sigma)
    got = [(predict.gain(at) ** 2 * doubt).mean().item() for predict in (Eps(), X0(), V())]
    assert got == pytest.approx([eps, x0, v], abs=1e-6)
