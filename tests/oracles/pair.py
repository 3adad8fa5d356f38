"""A correlated Gaussian pair, its exact denoiser and reverse chain, and exact moments of samplers that are affine."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ornstein.diffusion.solver import Memory, Row, Solver
from ornstein.types import Denoise, Point


@dataclass(frozen=True)
class Pair:
    """Data N(0, [[1, r], [r, 1]])."""

    correlation: float = 0.9

    @property
    def covariance(self) -> Tensor:
        """Of the data."""
        r = self.correlation
        return torch.tensor([[1.0, r], [r, 1.0]], dtype=torch.float64)

    def gain(self, point: Point) -> Tensor:
        """The matrix of E[x0 | x_t], per row."""
        alpha, noise = point.alpha[..., None], point.sigma[..., None] ** 2 * torch.eye(2, dtype=torch.float64)
        return alpha * self.covariance @ torch.linalg.inv(alpha**2 * self.covariance + noise)

    def denoise(self, x: Tensor, point: Point) -> Tensor:
        """E[x0 | x_t]."""
        return (self.gain(point) @ x[..., None])[..., 0]

    def spread(self, point: Point) -> Tensor:
        """Cov[x0 | x_t], per row."""
        return self.covariance - point.alpha[..., None] * self.gain(point) @ self.covariance


@dataclass(frozen=True)
class Reverse(Solver):
    """The exact reverse chain of a pair: ancestral steps with the full covariance of x_s given x_t."""

    data: Pair = Pair()

    @property
    def draws(self) -> int:
        return 1

    def row(self, now: Point, then: Point) -> Row:
        """Nothing that the step would use."""
        return (then.sigma / now.sigma,)

    def step(
        self, denoise: Denoise, x: Tensor, now: Point, then: Point, noise: Tensor | None, memory: Memory, row: Row = ()
    ) -> tuple[Tensor, Memory]:
        lost = 1 - (now.alpha / then.alpha) ** 2
        first, second = then.alpha * lost / now.sigma**2, now.alpha / then.alpha * (then.sigma / now.sigma) ** 2
        small = (lost * (then.sigma / now.sigma) ** 2)[..., None] * torch.eye(2, dtype=torch.float64)
        root = torch.linalg.cholesky(small + first[..., None] ** 2 * self.data.spread(now))
        return first * denoise(x, now) + second * x + (root @ noise[..., None])[..., 0], memory


def affine_moments(run: Callable[..., Tensor], *shapes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of run(*noise), one row that is affine in standard normal noise of these shapes."""
    noise = [torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    out = run(*noise)[0]
    rows = [torch.autograd.grad(entry, noise, retain_graph=True, materialize_grads=True) for entry in out]
    gains = torch.stack([torch.cat([gain.flatten() for gain in row]) for row in rows])
    return out.detach(), gains @ gains.T
