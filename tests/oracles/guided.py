"""Gaussian data, levels and likelihoods whose guided samples are known in closed form, or from tables."""

import torch
from torch import Tensor

from oracles.gaussian import Gaussian
from ornstein.diffusion.grid import Grid, log_snr
from ornstein.diffusion.process import LinearVP
from ornstein.diffusion.solver import Heun, sample
from ornstein.types import Denoise, Point

VP = LinearVP()
UNIT = Gaussian(0.0, 1.0)
HALF = Gaussian(1.0, 0.5)
PLAIN: Denoise = UNIT.denoise
TABLED = 4e-4
"""Reference values have four to five digits; 200 steps of Heun's method leave about 2e-4."""


def level(*rates: tuple[float, float], t: float = 0.5, ones: int = 1) -> Point:
    """A point with one (alpha, sigma) per row."""
    shape = (-1,) + (1,) * ones
    alpha, sigma = torch.tensor(rates, dtype=torch.float64).T
    return Point(torch.full((len(rates),), t, dtype=torch.float64), alpha.reshape(shape), sigma.reshape(shape))


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


NOW = level((0.6, 0.8))


def flow(denoise: Denoise, levels: Grid | None = None) -> tuple[float, float]:
    """Mean and standard deviation of what the probability-flow ODE makes of N(0, 1), where it is affine."""
    out = sample(denoise, column(0.0, 1.0), levels or log_snr(VP, 200), solver=Heun(), finish=False)
    return out[0].item(), (out[1] - out[0]).abs().item()


def noisy(x: Tensor, point: Point) -> Tensor:
    """log p(y = 1 | x_t) of unit Gaussian data seen with noise of variance 1/4."""
    return (-0.5 * (1 - point.alpha * x) ** 2 / (point.sigma**2 + 0.25)).sum(1)


def clean(x0: Tensor) -> Tensor:
    """log p(y = 1 | x0)."""
    return (-2 * (1 - x0) ** 2).sum(1)
