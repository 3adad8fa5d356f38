"""Runge-Kutta methods in time for the probability-flow ODE: the midpoint rule, RK4, and adaptive RK45."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.diffusion.process import point, speeds
from ornstein.diffusion.solver import Memory, Row, Solver, level_of
from ornstein.types import Denoise, Point, Process, Rates, X

Slope = Callable[[float, Float[Tensor, " *y"]], Float[Tensor, " *y"]]
"""(t, y) -> dy/dt."""


class Tableau(NamedTuple):
    """Butcher's tableau: how far each stage reaches along the earlier slopes, and the weights of all of them."""

    reach: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]


MIDPOINT = Tableau(((), (1 / 2,)), (0.0, 1.0))
RK4 = Tableau(((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
DORMAND_PRINCE = Tableau(
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (-71 / 57600, 0.0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40),
)
"""The last stage is the step itself (of order 5); the weights are those of its difference from order 4."""


@dataclass(frozen=True)
class RungeKutta(Solver):
    """A step of the midpoint rule (order 2) or of RK4 (order 4) in t; `process` gives the levels between."""

    process: Process
    scheme: Literal["midpoint", "rk4"] = "rk4"

    @property
    def tableau(self) -> Tableau:
        """The scheme's coefficients."""
        return MIDPOINT if self.scheme == "midpoint" else RK4

    @property
    def calls(self) -> int:
        """One per stage."""
        return len(self.tableau.weights)

    def row(self, now: Point, then: Point) -> Row:
        """For each stage its level, and the weights of x and x0 in the rise over the whole step."""
        start, end = (each.t.reshape(now.alpha.shape) for each in (now, then))
        stages = (_stage(self.process, start, end, math.fsum(reach)) for reach in self.tableau.reach)
        return tuple(entry for stage in stages for entry in stage)

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The weighted mean of the slopes at the stages."""
        row = row or self.row(now, then)

        def rise(i: int, y: Tensor) -> Tensor:
            t, alpha, sigma, keep, pull = row[5 * i : 5 * i + 5]
            return torch.addcmul(keep * y, pull, denoise(y, level_of(y, t, alpha, sigma)))

        return _along(x, _rises(rise, x, self.tableau), self.tableau.weights), memory


@dataclass(frozen=True)
class RK45(Solver):
    """Steps of any length by adaptive Dormand-Prince steps in t: as many calls as the tolerances ask for.

    All samples share their step, which depends on the whole batch; it is chosen on the host, outside of any graph.
    Source: Song et al. 2021 (2011.13456), appendix D.1, with the tolerances given there.
    """

    process: Process
    rtol: float = 1e-5
    atol: float = 1e-5

    @property
    def calls(self) -> int:
        """Not fixed."""
        return 0

    def row(self, now: Point, then: Point) -> Row:
        """Nothing."""
        return ()

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The solution of the probability-flow ODE, from the time of the first sample `now` to its time `then`."""
        slope = flow_slope(denoise, self.process)
        return rk45(slope, x, now.t[0].item(), then.t[0].item(), rtol=self.rtol, atol=self.atol)[0], memory


def flow_slope(denoise: Denoise, process: Process) -> Slope:
    """The slope dx/dt = x0 d(alpha)/dt + eps d(sigma)/dt of the probability-flow ODE, eps being that of x and x0."""

    def slope(t: float, x: X) -> X:
        level = point(process, x.new_full((len(x),), t), x)
        keep, pull = _drift(level, speeds(process, level.t.reshape(level.alpha.shape)))
        return torch.addcmul(keep * x, pull, denoise(x, level))

    return slope


def rk45(
    slope: Slope, y: Float[Tensor, " *y"], start: float, end: float, *, rtol: float = 1e-5, atol: float = 1e-5
) -> tuple[Float[Tensor, " *y"], int]:
    """Solution at `end` of dy/dt = slope(t, y), and the number of slopes taken; time may run either way.

    Each step keeps the root mean square over all entries of error / (atol + rtol |y|) below 1.
    Source: Dormand, Prince 1980; step control and first step of Hairer, Norsett, Wanner 1993, section II.4.
    """
    t, k = start, slope(start, y)
    h = _first_step(slope, y, k, (start, end), (rtol, atol))
    calls, limit = 2, 10.0
    while t != end:
        h = min(h, abs(end - t))
        if t + h == t or math.isnan(h):
            raise ValueError(
                f"the step fell below the resolution of t = {t}: raise rtol = {rtol} or atol = {atol}, "
                "unless the slope is not finite there"
            )
        now, then = (t, end) if h == abs(end - t) else (t, t + h * (1 if end > start else -1))
        new, last, error = _dormand_prince(slope, y, k, (now, then))
        calls += 6
        size = _norm(error / (atol + rtol * torch.maximum(y.abs(), new.abs())))
        h *= min(limit, max(0.2, 0.9 * max(size, 1e-10) ** -0.2))
        limit = 1.0
        if size < 1:
            t, y, k, limit = then, new, last, 10.0
    return y, calls


def _dormand_prince(slope: Slope, y: Tensor, k: Tensor, span: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """One step from y with slope k: the new y, the slope there, and the estimated error."""
    now, then = span
    stages: list[Tensor] = []

    def rise(i: int, y: Tensor) -> Tensor:
        stages.append(y)
        share = math.fsum(DORMAND_PRINCE.reach[i])
        return (then - now) * (slope(now + share * (then - now), y) if i else k)

    rises = _rises(rise, y, DORMAND_PRINCE)
    return stages[-1], rises[-1] / (then - now), _along(torch.zeros_like(y), rises, DORMAND_PRINCE.weights)


def _first_step(
    slope: Slope, y: Tensor, k: Tensor, span: tuple[float, float], tolerances: tuple[float, float]
) -> float:
    """A length for which Euler's step is safe, from the sizes of y, of its slope and of the slope's change."""
    (start, end), (rtol, atol) = span, tolerances
    scale = atol + rtol * y.abs()
    d0, d1 = _norm(y / scale), _norm(k / scale)
    h0 = 0.01 * d0 / d1 if min(d0, d1) >= 1e-5 else 1e-6
    h0 = min(h0, abs(end - start))
    ahead = h0 if end > start else -h0
    d2 = _norm((slope(start + ahead, y + ahead * k) - k) / scale) / h0
    return min(100 * h0, (0.01 / max(d1, d2)) ** 0.2 if max(d1, d2) > 1e-15 else max(1e-6, 1e-3 * h0))


def _stage(process: Process, start: Tensor, end: Tensor, share: float) -> tuple[Tensor, ...]:
    """The level at a share of a step in t, and the weights of x and x0 in the rise over the whole step."""
    t = torch.lerp(start, end, share)
    rates = process.rates(t)
    keep, pull = _drift(Point(t, *rates), speeds(process, t))
    return t, *rates, (end - start) * keep, (end - start) * pull


def _drift(level: Point, speed: Rates) -> tuple[Tensor, Tensor]:
    """Weights of x and x0 in dx/dt."""
    keep = speed.sigma / level.sigma
    return keep, speed.alpha - keep * level.alpha


def _rises(rise: Callable[[int, Tensor], Tensor], y: Tensor, tableau: Tableau) -> list[Tensor]:
    """The rises of y over the step with the slopes at all stages."""
    rises: list[Tensor] = []
    for i, reach in enumerate(tableau.reach):
        rises.append(rise(i, _along(y, rises, reach)))
    return rises


def _along(y: Tensor, rises: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """What y becomes along weighted rises."""
    for rise, weight in zip(rises, weights, strict=True):
        y = torch.add(y, rise, alpha=weight)
    return y


def _norm(y: Tensor) -> float:
    return y.square().mean().sqrt().item()
