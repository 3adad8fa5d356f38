"""Exponential integrators in lam = log(alpha / sigma): DPM-Solver and DPM-Solver++, single- and multistep.

The linear part of the probability-flow ODE is solved exactly; what is left is an integral over the network's answer m:

    x' = (sigma' / sigma) x + sigma' int exp(lam) x0 dlam        form "x0": DPM-Solver++
    x' = (alpha' / alpha) x - alpha' int exp(-lam) eps dlam      form "eps": DPM-Solver

With h = lam' - lam, and (feed, g) = (-alpha', -h) in the first form, (-sigma', h) in the second, both integrate the
Taylor series m + m' h + m'' h^2 / 2 by the weights feed * (phi_1, phi_2, phi_3)(g) on (m, m' h, m'' h^2).

The form "eps" divides by alpha: on paths that start without signal (straight, cosine), start it a little later.
Source: Lu et al. 2022 (2206.00927 and 2211.01095).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ornstein.diffusion.solver import DDIM, Memory, Row, Solver, level_of
from ornstein.types import Denoise, Point, Process, X

Form = Literal["x0", "eps"]
"""Which answer of the network varies slowly and is integrated."""


@dataclass(frozen=True)
class DPMSolverPP2M(Solver):
    """Second-order multistep solver; its first step is of first order.

    eta = 0 solves the ODE, eta = 1 the SDE (SDE-DPM-Solver++(2M)), with DDIM's family between them.
    Source: Lu et al. 2022 (2211.01095), algorithm 2 and eq. 20.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what DDIM refuses."""
        DDIM(self.eta)

    @property
    def draws(self) -> int:
        """None at eta = 0."""
        return DDIM(self.eta).draws

    def init(self, x: X) -> Memory:
        """The last x0, and 1 / h of the last step: 0, as if that step had come from infinitely far."""
        return torch.zeros_like(x), x.new_zeros(())

    def row(self, now: Point, then: Point) -> Row:
        """DDIM's weights; half the step in lam, backwards; and 1 / h."""
        h = _step(now, then)
        return *DDIM(self.eta).row(now, then), -0.5 * h, 1 / h

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """DDIM's step with x0 extrapolated to its middle: D = x0 + (x0 - x0_last) / (2 r), r = h_last / h."""
        keep, pull, kick, back, per_h = row or self.row(now, then)
        last, per_last = memory
        x0 = denoise(x, now)
        middle = torch.lerp(x0, last, back * per_last)
        x = torch.addcmul(keep * x, pull, middle)
        return (x if noise is None else torch.addcmul(x, kick, noise)), (x0, per_h)


@dataclass(frozen=True)
class DPMSolver2M(Solver):
    """Second-order multistep solver in eps; its first step is of first order.

    Source: Lu et al. 2022 (2211.01095), appendix, and official code (multistep, order 2, "dpmsolver").
    """

    def init(self, x: X) -> Memory:
        """The last eps, and 1 / h of the last step: 0."""
        return DPMSolverPP2M().init(x)

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x and eps; half the step in lam, backwards; and 1 / h."""
        keep, feed, g = _frame("eps", now, then)
        return keep, feed * torch.expm1(g), -0.5 * g, 1 / g

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The first-order step with eps extrapolated to its middle."""
        keep, feed, back, per_h = row or self.row(now, then)
        last, per_last = memory
        eps = _answer("eps", denoise, x, now)
        middle = torch.lerp(eps, last, back * per_last)
        return torch.addcmul(keep * x, feed, middle), (eps, per_h)


@dataclass(frozen=True)
class DPMSolverPP3M(Solver):
    """Third-order multistep solver; its first two steps are of first and second order.

    Source: Lu et al. 2022 (2211.01095), official code (multistep, order 3).
    Deviates: that code halves the second difference and is thereby of second order only; `compat` does as it does.
    """

    form: Form = "x0"
    compat: bool = False

    def init(self, x: X) -> Memory:
        """The last answer and its slope, and the last two steps: endless, so that nothing rises before the start."""
        endless = x.new_full((), 1e30)
        return torch.zeros_like(x), torch.zeros_like(x), endless, endless

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, of the answer, its slope and its curvature in lam, and h."""
        keep, feed, g = _frame(self.form, now, then)
        h = _step(now, then)
        first, second, third = _phi(g)
        return keep, feed * first, feed * second * h, feed * third * h**2 * (1 if self.compat else 2), h

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """Newton's divided differences of the last three answers, integrated exactly."""
        keep, value, slope, bend, h = row or self.row(now, then)
        last, last_rise, h_0, h_1 = memory
        m = _answer(self.form, denoise, x, now)
        rise = (m - last) / h_0
        curl = (rise - last_rise) / (h_0 + h_1)
        x = torch.addcmul(keep * x, value, m)
        x = torch.addcmul(x, slope, torch.addcmul(rise, h_0, curl))
        return torch.addcmul(x, bend, curl), (m, rise, h, h_0)


@dataclass(frozen=True)
class DPMSolver2(Solver):
    """Second-order singlestep solver: the exponential midpoint rule. DPM-Solver-2; with form "x0" DPM-Solver++(2S).

    `process` gives the level in the middle of a step in lam.
    Source: Lu et al. 2022 (2206.00927), algorithm 1; (2211.01095), algorithm 1; r_1 = 1/2.
    """

    process: Process
    form: Form = "eps"

    @property
    def calls(self) -> int:
        """One at the start and one in the middle."""
        return 2

    def row(self, now: Point, then: Point) -> Row:
        """The level in the middle, and the weights of x and the answer in both steps of first order."""
        middle = _between(self.process, now, then, 1 / 2)
        return *middle, *_first(self.form, now, middle), *_first(self.form, now, then)

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The step of first order with the answer in its middle."""
        t, alpha, sigma, keep_u, feed_u, keep, feed = row or self.row(now, then)
        u = torch.addcmul(keep_u * x, feed_u, _answer(self.form, denoise, x, now))
        return torch.addcmul(keep * x, feed, _answer(self.form, denoise, u, level_of(x, t, alpha, sigma))), memory


@dataclass(frozen=True)
class DPMSolver3(Solver):
    """Third-order singlestep solver. DPM-Solver-3; with form "x0" DPM-Solver++(3S).

    `process` gives the levels at one and two thirds of a step in lam.
    Source: Lu et al. 2022 (2206.00927), algorithm 2, r_1 = 1/3, r_2 = 2/3.
    """

    process: Process
    form: Form = "eps"

    @property
    def calls(self) -> int:
        """One at the start and one at each third."""
        return 3

    def row(self, now: Point, then: Point) -> Row:
        """Both levels, and the weights of x, the answer and its rise so far in all three steps."""
        third, two = (_between(self.process, now, then, share) for share in (1 / 3, 2 / 3))
        steps = (*_first(self.form, now, third), *_second(self.form, now, two), *_second(self.form, now, then))
        return *third, *two, *steps

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """Each third with the slope that the one before it gave: twice the rise over a third, 3/2 of that over two."""
        row = row or self.row(now, then)
        keep_u, feed_u, keep_v, feed_v, rise_v, keep, feed, rise = row[6:]
        m = _answer(self.form, denoise, x, now)
        u = torch.addcmul(keep_u * x, feed_u, m)
        rise_u = 2 * (_answer(self.form, denoise, u, level_of(x, *row[:3])) - m)
        v = torch.addcmul(torch.addcmul(keep_v * x, feed_v, m), rise_v, rise_u)
        rise_w = 1.5 * (_answer(self.form, denoise, v, level_of(x, *row[3:6])) - m)
        return torch.addcmul(torch.addcmul(keep * x, feed, m), rise, rise_w), memory


def lam(point: Point) -> Tensor:
    """log(alpha / sigma), held finite where a path starts without any signal."""
    return torch.log(point.alpha.clamp(min=1e-20) / point.sigma)


def _step(now: Point, then: Point) -> Tensor:
    """The step h in lam."""
    return lam(then) - lam(now)


def _phi(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The integrals of exp(g (1 - s)) g (1, s, s^2 / 2) over s in [0, 1]."""
    first = torch.expm1(g)
    second = first / g - 1
    return first, second, second / g - 0.5


def _frame(form: Form, now: Point, then: Point) -> tuple[Tensor, Tensor, Tensor]:
    """What x is multiplied by, what feeds the answer in, and the signed step g."""
    h = _step(now, then)
    if form == "x0":
        return then.sigma / now.sigma, -then.alpha, -h
    return then.alpha / now.alpha, -then.sigma, h


def _first(form: Form, now: Point, then: Point) -> tuple[Tensor, Tensor]:
    """Weights of x and the answer in a step of first order."""
    keep, feed, g = _frame(form, now, then)
    return keep, feed * torch.expm1(g)


def _second(form: Form, now: Point, then: Point) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of x, of the answer, and of its rise over the step."""
    keep, feed, g = _frame(form, now, then)
    first, second, _ = _phi(g)
    return keep, feed * first, feed * second


def _between(process: Process, now: Point, then: Point, share: float) -> Point:
    """The level at a share of the step in lam."""
    t = process.time(torch.lerp(lam(now), lam(then), share))
    return Point(t, *process.rates(t))


def _answer(form: Form, denoise: Denoise, x: X, level: Point) -> X:
    """What is integrated: x0, or the eps that goes with it."""
    x0 = denoise(x, level)
    return x0 if form == "x0" else torch.addcmul(x, level.alpha, x0, value=-1) / level.sigma
