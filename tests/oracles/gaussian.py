"""Closed forms: exact denoisers of Gaussian and Gaussian-mixture data on any process, their marginals and flow maps."""

import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import torch
from torch import Tensor

from ornstein.diffusion.grid import Grid
from ornstein.diffusion.solver import Solver, sample
from ornstein.types import Point


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, std^2) in every entry."""

    mean: float = 1.0
    std: float = 0.5

    def denoise(self, x: Tensor, point: Point) -> Tensor:
        """E[x0 | x_t]."""
        a, s = point.alpha, point.sigma
        return self.mean + a * self.std**2 / (a**2 * self.std**2 + s**2) * (x - a * self.mean)

    def posterior_var(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Var[x0 | x_t]."""
        return self.std**2 * sigma**2 / (alpha**2 * self.std**2 + sigma**2)

    def var(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Var[x_t]."""
        return alpha**2 * self.std**2 + sigma**2

    def score(self, x: Tensor, point: Point) -> Tensor:
        """Grad log p(x_t)."""
        return -(x - point.alpha * self.mean) / self.var(point.alpha, point.sigma)

    def log_prob(self, x: Tensor, point: Point) -> Tensor:
        """Log density of every entry at a level."""
        var = self.var(point.alpha, point.sigma)
        return -0.5 * (x - point.alpha * self.mean) ** 2 / var - 0.5 * torch.log(2 * math.pi * var)

    def transport(self, x: Tensor, now: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> Tensor:
        """The exact flow map of the probability-flow ODE between two levels (alpha, sigma)."""
        scale = torch.sqrt(self.var(*then) / self.var(*now))
        return then[0] * self.mean + scale * (x - now[0] * self.mean)


@dataclass(frozen=True)
class Mixture:
    """One-dimensional mixture of Gaussians, in every entry on its own."""

    weights: tuple[float, ...] = (0.3, 0.7)
    means: tuple[float, ...] = (-1.0, 0.8)
    stds: tuple[float, ...] = (0.5, 0.4)

    @property
    def mean(self) -> float:
        """Mean of the data."""
        return sum(w * m for w, m in zip(self.weights, self.means, strict=True))

    @property
    def var(self) -> float:
        """Variance of the data."""
        square = sum(w * (m**2 + s**2) for w, m, s in zip(self.weights, self.means, self.stds, strict=True))
        return square - self.mean**2

    def _parts(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, ...]:
        w, m, s = (torch.tensor(each, dtype=x.dtype, device=x.device) for each in (self.weights, self.means, self.stds))
        alpha, sigma = alpha[..., None], sigma[..., None]
        var = alpha**2 * s**2 + sigma**2
        gap = x[..., None] - alpha * m
        return gap, var, torch.log(w) - 0.5 * gap**2 / var - 0.5 * torch.log(2 * math.pi * var), alpha, m, s, w

    def denoise(self, x: Tensor, point: Point) -> Tensor:
        """E[x0 | x_t]."""
        gap, var, log_joint, alpha, m, s, _ = self._parts(x, point.alpha, point.sigma)
        return (torch.softmax(log_joint, -1) * (m + alpha * s**2 / var * gap)).sum(-1)

    def score(self, x: Tensor, point: Point) -> Tensor:
        """Grad log p(x_t)."""
        gap, var, log_joint, *_ = self._parts(x, point.alpha, point.sigma)
        return (torch.softmax(log_joint, -1) * (-gap / var)).sum(-1)

    def log_prob(self, x: Tensor, point: Point) -> Tensor:
        """Log density of every entry at a level."""
        return torch.logsumexp(self._parts(x, point.alpha, point.sigma)[2], -1)

    def cdf(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Distribution function of x_t."""
        gap, var, _, _, _, _, w = self._parts(x, alpha, sigma)
        return (w * torch.special.ndtr(gap / torch.sqrt(var))).sum(-1)

    def transport(self, x: Tensor, now: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor]) -> Tensor:
        """The exact flow map between two levels: in one dimension, the monotone map of quantiles (by bisection).

        Works on the tail that is the smaller, so that extreme quantiles keep their digits.
        """
        low_tail, high_tail = self.cdf(x, *now), self._upper(x, *now)
        reach = 20 * (torch.sqrt(then[1] ** 2 + then[0] ** 2) + 1)
        low, high = -reach * torch.ones_like(x), reach * torch.ones_like(x)
        for _ in range(200):
            middle = 0.5 * (low + high)
            below = torch.where(
                low_tail < high_tail, self.cdf(middle, *then) < low_tail, self._upper(middle, *then) > high_tail
            )
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return 0.5 * (low + high)

    def _upper(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        gap, var, _, _, _, _, w = self._parts(x, alpha, sigma)
        return (w * torch.special.ndtr(-gap / torch.sqrt(var))).sum(-1)


MIXTURE = Mixture()


def normal_quantiles(n: int) -> Tensor:
    """The (i + 1/2) / n quantiles of N(0, 1), as a column (n, 1) in double precision."""
    return torch.tensor([[NormalDist().inv_cdf((i + 0.5) / n)] for i in range(n)], dtype=torch.float64)


def transport_error(data: Mixture | Gaussian, solver: Solver, grid: Grid, start: Tensor) -> float:
    """Largest distance of a solver from the exact flow map, from the first to the last level of a grid."""
    reached = sample(data.denoise, start, grid, solver=solver, finish=False)
    exact = data.transport(start, (grid.alpha[0], grid.sigma[0]), (grid.alpha[-1], grid.sigma[-1]))
    return (reached - exact).abs().max().item()


def moments(
    data: Gaussian, solver: Solver, grid: Grid, *, start: tuple[float, float] = (0.0, 1.0), finish: bool = True
) -> tuple[float, float]:
    """Exact mean and variance of a solver's samples of Gaussian data, from a start of this mean and variance.

    With the exact denoiser a sample is affine in the start and in each draw: one batch of unit vectors gives all gains.
    """
    steps = len(grid.t) - 1
    x = torch.zeros(steps + 2, 1, dtype=torch.float64)
    x[1] = 1.0
    noise = torch.zeros(steps, steps + 2, 1, dtype=torch.float64)
    noise[torch.arange(steps), torch.arange(steps) + 2] = 1.0
    out = sample(data.denoise, x, grid, solver=solver, noise=noise, finish=finish)[:, 0]
    gains = out[1:] - out[0]
    return (out[0] + gains[0] * start[0]).item(), (gains[0] ** 2 * start[1] + (gains[1:] ** 2).sum()).item()


def slopes(errors: list[float], ratio: float = 2.0) -> list[float]:
    """Orders of convergence between neighbours of a list whose step shrinks by `ratio`."""
    return [math.log(a / b) / math.log(ratio) for a, b in pairwise(errors)]
