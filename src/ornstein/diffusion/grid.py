"""Time grids: where a solver stops between noise and data. Computed once, in double precision."""

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, device

from ornstein.diffusion.process import DiscreteVP
from ornstein.types import Process

Spacing = Literal["uniform", "leading", "quad", "trailing", "linspace"]
"""Rules that pick nodes of a discrete chain."""


class Grid(NamedTuple):
    """Levels of decreasing noise, never down to sigma = 0: times, alpha and sigma, each (n,)."""

    t: Float[Tensor, " n"]
    alpha: Float[Tensor, " n"]
    sigma: Float[Tensor, " n"]

    def to(self, where: device | str) -> "Grid":
        """The same levels on a device."""
        return Grid(*(each.to(where) for each in self))

    def flipped(self) -> "Grid":
        """The levels from data to noise: sampling along them, without the final denoise, encodes data."""
        return Grid(*(each.flip(0) for each in self))


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


def strided(process: DiscreteVP, n: int, spacing: Spacing = "trailing") -> Grid:
    """About n of the nodes of a discrete chain, noise first, by one of the published rules for their 0-based labels.

    - "uniform": 0, c, 2c, ... with c = steps // n; more than n where n does not divide the steps, and never the last.
    - "leading": the n first of these.
    - "quad": floor(linspace(0, sqrt(0.8 steps), n)^2), each once; ends at 0.8 steps.
    - "trailing": round(steps - i steps / n) - 1; starts at the last node, as sampling from pure noise needs.
    - "linspace": round(linspace(0, steps - 1, n)).

    Source: Song, Meng, Ermon 2021 (2010.02502), appendix D.3 and code (uniform, quad); Lin et al. 2024 (2305.08891),
    table 2 (leading, linspace, trailing).
    """
    steps = process.steps
    if spacing not in get_args(Spacing) or not 1 <= n <= steps:
        raise ValueError(f"n = {n}, spacing = {spacing!r}: give 1 to {steps} nodes by {', '.join(get_args(Spacing))}")
    if spacing in ("uniform", "leading"):
        labels = torch.arange(0, steps, steps // n)
        labels = labels[:n] if spacing == "leading" else labels
    elif spacing == "quad":
        labels = torch.linspace(0, (0.8 * steps) ** 0.5, n, dtype=torch.float64).square().floor().unique()
    elif spacing == "trailing":
        labels = torch.round(steps * torch.arange(1, n + 1, dtype=torch.float64) / n) - 1
    else:
        labels = torch.round(torch.linspace(0, steps - 1, n, dtype=torch.float64))
    return at(process, (labels.flip(0).double() + 1) / steps)


def _lam(process: Process, start: float, end: float) -> Tensor:
    alpha, sigma = process.rates(torch.tensor([start, end], dtype=torch.float64))
    lam = torch.log(alpha / sigma)
    if not bool(torch.isfinite(lam).all()):
        raise ValueError(f"log(alpha / sigma) runs from {lam[0]} to {lam[1]}: lower `start` or raise `end`")
    return lam
