"""Time grids: where a solver stops between noise and data. Computed once, in double precision."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, device

from ornstein.types import Process


class Grid(NamedTuple):
    """Levels of decreasing noise, never down to sigma = 0: times, alpha and sigma, each (n,)."""

    t: Float[Tensor, " n"]
    alpha: Float[Tensor, " n"]
    sigma: Float[Tensor, " n"]

    def to(self, where: device | str) -> "Grid":
        """The same levels on a device."""
        return Grid(*(each.to(where) for each in self))


def at(process: Process, t: Float[Tensor, " n"]) -> Grid:
    """The grid of `process` at these times; they must have noise left."""
    grid = Grid(t.double(), *process.rates(t.double()))
    if not bool((grid.sigma > 0).all()):
        raise ValueError(f"a grid must end before the clean data, but sigma is {grid.sigma.min()} in it: raise `end`")
    return grid


def uniform(process: Process, n: int, *, start: float = 1.0, end: float | None = None) -> Grid:
    """Evenly spaced times, n of them; by default 1, (n - 1) / n, ..., 1 / n, the last denoise being the n-th step."""
    return at(process, torch.linspace(start, 1 / n if end is None else end, n, dtype=torch.float64))


def quadratic(process: Process, n: int, *, start: float = 1.0, end: float = 1e-3) -> Grid:
    """The n times whose square roots are evenly spaced. Source: Lu et al. 2022 (2206.00927), appendix D.4."""
    return at(process, torch.linspace(start**0.5, end**0.5, n, dtype=torch.float64) ** 2)


def log_snr(process: Process, n: int, *, start: float = 1.0, end: float = 1e-3) -> Grid:
    """The n times with evenly spaced lam = log(alpha / sigma). Source: Lu et al. 2022 (2206.00927), section 3.4."""
    first, last = _lam(process, start, end)
    return at(process, process.time(first + (last - first) * torch.linspace(0, 1, n, dtype=torch.float64)))


def karras(process: Process, n: int, rho: float = 7.0, *, start: float = 1.0, end: float = 0.0) -> Grid:
    """The n times with evenly spaced (sigma / alpha)^(1 / rho). Source: Karras et al. 2022 (2206.00364), eq. 5."""
    first, last = torch.exp(-_lam(process, start, end) / rho)
    share = torch.linspace(0, 1, n, dtype=torch.float64)
    return at(process, process.time(-rho * torch.log(first + (last - first) * share)))


def _lam(process: Process, start: float, end: float) -> Tensor:
    alpha, sigma = process.rates(torch.tensor([start, end], dtype=torch.float64))
    return torch.log(alpha / sigma)
