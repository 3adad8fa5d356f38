"""Solvers with noise beyond DDIM's: EDM's churn around any solver, and Euler-Maruyama on the reverse SDE."""

import math
from dataclasses import dataclass

import torch

from ornstein.diffusion.process import speeds
from ornstein.diffusion.solver import Memory, Row, Solver, level_of
from ornstein.types import Denoise, Point, Process, X


@dataclass(frozen=True)
class Churn(Solver):
    """EDM's churn: before each step of `solver`, fresh noise raises sigma / alpha by the share `churn`.

    `churn` is S_churn over the number of sampling steps, and never more than sqrt(2) - 1; it acts where sigma / alpha
    lies in [`low`, `high`] (S_tmin, S_tmax). `inflate` multiplies the standard deviation of the noise (S_noise).
    `process` gives the raised level. Source: Karras et al. 2022 (2206.00364), algorithm 2, for every path.
    """

    solver: Solver
    process: Process
    churn: float
    low: float = 0.0
    high: float = math.inf
    inflate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse solvers that draw noise of their own, and a negative churn."""
        if self.solver.draws:
            raise ValueError(f"{self.solver} draws noise itself: churn goes around a deterministic solver")
        if self.churn < 0:
            raise ValueError(f"churn = {self.churn} must not be negative")

    @property
    def calls(self) -> int:
        """Those of the solver."""
        return self.solver.calls

    @property
    def draws(self) -> int:
        """One."""
        return 1

    def init(self, x: X) -> Memory:
        """That of the solver."""
        return self.solver.init(x)

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x and of fresh noise, the raised level, and the solver's row from there."""
        ratio = now.sigma / now.alpha
        rise = torch.where((self.low <= ratio) & (ratio <= self.high), min(self.churn, math.sqrt(2) - 1), 0.0).to(ratio)
        t = self.process.time(-torch.log(ratio * (1 + rise)))
        alpha, sigma = self.process.rates(t)
        kept = 1 / (1 + rise)
        kick = self.inflate * sigma * torch.sqrt(1 - kept**2)
        return sigma / now.sigma * kept, kick, t, alpha, sigma, *self.solver.row(Point(t, alpha, sigma), then)

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The solver's step from the raised level."""
        keep, kick, t, alpha, sigma, *rest = row or self.row(now, then)
        raised = keep * x if noise is None else torch.addcmul(keep * x, kick, noise)
        return self.solver.step(denoise, raised, level_of(x, t, alpha, sigma), then, None, memory, tuple(rest))


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """Euler-Maruyama steps in t of dx = [f x - (1 + noise^2) / 2 g^2 score] dt + noise g dW, from 1 to 0.

    noise = 1 is the reverse SDE, noise = 0 the probability-flow ODE. It needs signal at every level (alpha > 0).
    Source: Song et al. 2021 (2011.13456), eq. 6 and 13.
    """

    process: Process
    noise: float = 1.0

    @property
    def draws(self) -> int:
        """One."""
        return 1

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, x0 and z, with f = d log alpha / dt, g^2 = 2 sigma^2 d log(sigma / alpha) / dt."""
        dt = (then.t - now.t).reshape(now.alpha.shape)
        speed = speeds(self.process, now.t.reshape(now.alpha.shape))
        fall = speed.alpha / now.alpha
        grow = speed.sigma / now.sigma - fall
        pull = (1 + self.noise**2) * grow * dt
        kick = self.noise * now.sigma * torch.sqrt(-2 * grow * dt)
        return 1 + fall * dt + pull, -pull * now.alpha, kick
