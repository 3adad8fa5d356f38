"""Few-step generators: functions that take any point of a probability-flow path to its end in one call.

A consistency function is a `Denoiser` in the parameterisation `Boundary`: what differs is how it is trained, so that
its answer is where the path ends and not the mean of all data that could have led here. Several calls are sampling
with the solver `Renoise`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.diffusion.grid import Grid
from ornstein.diffusion.process import corrupt
from ornstein.diffusion.solver import Row, Solver
from ornstein.types import Denoise, Point, Time, X


@dataclass(frozen=True)
class Boundary:
    """f = c_skip x_t + c_out F(c_in x_t) with f = x_t exactly at the lowest noise level.

    Source: Song et al. 2023 (2303.01469), appendix C, on the path of Karras et al. 2022 (alpha = 1).
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.002

    def scale(self, x_t: X, point: Point) -> X:
        """c_in x_t = x_t / sqrt(sigma^2 + sigma_data^2)."""
        return x_t * torch.rsqrt(point.sigma**2 + self.sigma_data**2)

    def target(self, x0: X, point: Point, eps: X) -> X:
        """What F should say for f to be x0; without bounds where the noise is lowest, since there f is x_t."""
        skip, out = self.weights(point)
        return (x0 - skip * corrupt(x0, point, eps)) / out

    def x0(self, output: X, x_t: X, point: Point) -> X:
        """c_skip x_t + c_out F."""
        skip, out = self.weights(point)
        return torch.addcmul(skip * x_t, out, output)

    def gain(self, point: Point) -> Tensor:
        """1 / c_out."""
        return 1 / self.weights(point)[1]

    def weights(self, point: Point) -> tuple[Tensor, Tensor]:
        """c_skip = s^2 / ((sigma - sigma_min)^2 + s^2) and c_out = (sigma - sigma_min) s / sqrt(sigma^2 + s^2)."""
        s, above = self.sigma_data, point.sigma - self.sigma_min
        return s**2 / (above**2 + s**2), above * s * torch.rsqrt(point.sigma**2 + s**2)


@dataclass(frozen=True)
class Renoise(Solver):
    """A step that denoises all the way and adds fresh noise up to the next level: multistep consistency sampling.

    `floor` is the noise that the function leaves in its answer: alpha' f + sqrt(sigma'^2 - floor^2) z.
    Source: Song et al. 2023 (2303.01469), algorithm 1.
    """

    floor: float = 0.002

    @property
    def draws(self) -> int:
        """One."""
        return 1

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, of x0 and of z."""
        return torch.zeros_like(now.alpha), then.alpha, torch.sqrt((then.sigma**2 - self.floor**2).clamp(min=0.0))


def adjacent(grid: Grid, uniform: Time, like: X) -> tuple[Point, Point]:
    """Two neighbouring levels of the grid for each row, the noisier one first, from uniform numbers in [0, 1)."""
    first = torch.floor(uniform * (len(grid.t) - 1)).long()
    t, alpha, sigma = (entry.to(like.dtype) for entry in grid)
    shape = (-1, *(1,) * (like.dim() - 1))
    noisier, cleaner = (Point(t[i], alpha[i].view(shape), sigma[i].view(shape)) for i in (first, first + 1))
    return noisier, cleaner


def consistency_error(
    student: Denoise, target: Denoise, x0: X, eps: X, *, levels: tuple[Point, Point]
) -> Float[Tensor, " b *x"]:
    """Squared error per entry between the student at the noisier level and the target, detached, at the cleaner one.

    Both see the SAME x0 and eps, so the two points lie on one line, which is one Euler step of the path under the score
    of one sample: independent noise would make the student a denoiser, the mean of the data.
    Source: Song et al. 2023 (2303.01469), eq. 10 (consistency training).
    """
    noisier, cleaner = levels
    with torch.no_grad():
        answer = target(corrupt(x0, cleaner, eps), cleaner)
    return (student(corrupt(x0, noisier, eps), noisier) - answer).square()


def pseudo_huber(squared: Float[Tensor, " *x"], size: int) -> Float[Tensor, " *x"]:
    """Of squared distances in `size` dimensions, sqrt(squared + c^2) - c with c = 0.00054 sqrt(size).

    Source: Song, Dhariwal 2024 (2310.14189), section 3.3.
    """
    c = 0.00054 * math.sqrt(size)
    return torch.sqrt(squared + c**2) - c


def levels_at(step: int, steps: int, *, first: int = 2, last: int = 150) -> int:
    """The number of grid points at a step of progressive consistency training, from `first` to `last` + 1.

    Source: Song et al. 2023 (2303.01469), appendix C.
    """
    grown = step / steps * ((last + 1) ** 2 - first**2) + first**2
    return max(1, math.ceil(math.sqrt(grown) - 1)) + 1


def improved_levels_at(step: int, steps: int, *, first: int = 10, last: int = 1280) -> int:
    """The number of grid points that doubles at equal intervals. Source: Song, Dhariwal 2024 (2310.14189), eq. 10."""
    interval = steps // (math.floor(math.log2(last // first)) + 1)
    return min(first * 2 ** (step // interval), last) + 1


def averaging_rate_at(levels: int, *, first: int = 2, kept: float = 0.9) -> float:
    """The share of the new weights in the target's average, 1 - exp(first ln(kept) / (levels - 1)).

    Source: Song et al. 2023 (2303.01469), appendix C, whose mu is the share of the old.
    """
    return 1 - math.exp(first * math.log(kept) / (levels - 1))


def index_law(sigma: Float[Tensor, " n"], *, mean: float = -1.1, std: float = 2.0) -> Float[Tensor, " intervals"]:
    """The probability of each pair of neighbouring levels under a log-normal of sigma; sums to 1.

    Source: Song, Dhariwal 2024 (2310.14189), section 3.5.
    """
    below = torch.erf((torch.log(sigma) - mean) / (math.sqrt(2) * std))
    mass = below.diff().abs()
    return mass / mass.sum()
