"""From noise to data: the only sampling loops, and the solvers of one call that need nothing but the two levels.

A solver's step is a pure function of x, the levels `now` and `then`, fresh noise and its memory. What it needs of the
levels alone it computes in `row`, elementwise: so `sample` tabulates a whole grid at once, in the grid's precision,
and a step costs a handful of tensor operations beside the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.diffusion.grid import Grid
from ornstein.types import Constrain, Denoise, Draw, Noise, NoiseSpec, Point, Shift, X

Row = tuple[Tensor, ...]
"""The coefficients of one step; each multiplies x as it is."""

Memory = tuple[Tensor, ...]
"""What a solver carries from step to step."""


class Solver(Protocol):
    """One step of an integrator from noise to data.

    A solver that inherits from it makes one call, draws nothing and remembers nothing, unless it says otherwise.
    """

    @property
    def calls(self) -> int:
        """Network calls of one step."""
        return 1

    @property
    def draws(self) -> int:
        """Noise tensors of one step: 0 or 1."""
        return 0

    def init(self, x: X) -> Memory:
        """The memory before the first step."""
        return ()

    def row(self, now: Point, then: Point) -> Row:
        """The coefficients of the step between two levels, elementwise in their leading axes."""
        ...

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The state at `then`, and the next memory; an empty `row` is computed here."""
        ...


@dataclass(frozen=True)
class DDIM(Solver):
    """Denoising diffusion implicit steps: deterministic at eta = 0, ancestral (posterior variance) at eta = 1.

    On straight paths eta = 0 is Euler's method in t; in sigma / alpha it is so on every path.
    Source: Song, Meng, Ermon 2021 (2010.02502), eq. 12 and 16.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an eta for which the variance left for the old noise would be negative."""
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta = {self.eta} must lie in [0, 1]: 0 is deterministic, 1 ancestral")

    @property
    def draws(self) -> int:
        """No noise at eta = 0."""
        return int(self.eta > 0)

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, of x0 and of fresh noise."""
        fresh = self.eta**2 * (1 - _shrink(now, then) ** 2)
        keep = then.sigma / now.sigma * torch.sqrt(1 - fresh)
        return keep, then.alpha - keep * now.alpha, then.sigma * torch.sqrt(fresh)

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """Gives alpha' x0 + sqrt(sigma'^2 - q^2) eps + q z, with eps recomputed from x0."""
        keep, pull, kick = row or self.row(now, then)
        return _affine(x, denoise(x, now), noise, keep, pull, kick), memory


@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral steps: the posterior q(x_s | x_t, x0) at the denoised x0, with one of the usual variances.

    `variance`: "small" is the posterior's (exact for a data point), "large" the forward step's (exact for unit
    Gaussian data); a number in [0, 1] interpolates their logarithms from small to large. `temperature` multiplies the
    standard deviation of the noise.
    Source: Ho, Jain, Abbeel 2020 (2006.11239), eq. 7 and section 3.2; Nichol, Dhariwal 2021 (2102.09672), eq. 15.
    """

    variance: Literal["small", "large"] | float = "small"
    temperature: float = 1.0

    @property
    def draws(self) -> int:
        """One noise tensor."""
        return 1

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, of x0 and of fresh noise."""
        shrink = _shrink(now, then)
        lost = 1 - shrink**2
        share = float(self.variance) if isinstance(self.variance, (int, float)) else float(self.variance == "large")
        std = torch.sqrt(lost) * then.sigma ** (1 - share) * now.sigma**share
        return shrink * then.sigma / now.sigma, lost * then.alpha, self.temperature * std

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """c1 x0 + c2 x + sqrt(q) z."""
        keep, pull, kick = row or self.row(now, then)
        return _affine(x, denoise(x, now), noise, keep, pull, kick), memory


@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method for the probability-flow ODE dx = x0 d(alpha) + eps d(sigma); the steps of DDIM at eta = 0."""

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x and of x0."""
        keep = then.sigma / now.sigma
        return keep, then.alpha - keep * now.alpha

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """Gives alpha' x0 + sigma' eps."""
        keep, pull = row or self.row(now, then)
        return torch.addcmul(keep * x, pull, denoise(x, now)), memory


@dataclass(frozen=True)
class Heun(Solver):
    """Heun's method for the probability-flow ODE dx = x0 d(alpha) + eps d(sigma): Euler, then the mean of both slopes.

    On variance exploding paths this is EDM's step in sigma, on straight paths the usual one in t.
    Source: Karras et al. 2022 (2206.00364), algorithm 1.
    """

    @property
    def calls(self) -> int:
        """One call at each end."""
        return 2

    def row(self, now: Point, then: Point) -> Row:
        """Euler's weights, and those of the corrected step on x, on the first x0, on the second, and on Euler's x."""
        keep = then.sigma / now.sigma
        half, back = 0.5 * (1 + keep), 0.5 * (1 - 1 / keep)
        first = 0.5 * (then.alpha - now.alpha * keep)
        return keep, 2 * first, half, first, 0.5 * (then.alpha / keep - now.alpha), back

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """Gives x + (d + d') / 2."""
        keep, pull, half, first, second, back = row or self.row(now, then)
        x0 = denoise(x, now)
        euler = torch.addcmul(keep * x, pull, x0)
        mean = torch.addcmul(torch.addcmul(half * x, first, x0), back, euler)
        return torch.addcmul(mean, second, denoise(euler, then)), memory


@dataclass(frozen=True)
class DPMSolverPP2M(Solver):
    """Second-order multistep solver in lam with x0 as the slowly varying function; its first step is of first order.

    Source: Lu et al. 2022 (2211.01095), algorithm 2.
    """

    def init(self, x: X) -> Memory:
        """The last x0, and 1 / h of the last step: 0, as if that step had come from infinitely far."""
        return torch.zeros_like(x), torch.zeros_like(x)

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, of x0 and of its slope in lam, and 1 / h."""
        h = _lam(then) - _lam(now)
        pull = then.alpha * -torch.expm1(-h)
        return then.sigma / now.sigma, pull, 0.5 * h * pull, 1 / h

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """sigma'/sigma x - alpha' expm1(-h) (x0 + h / 2 slope)."""
        keep, pull, bend, per_h = row or self.row(now, then)
        last, per_last = memory
        x0 = denoise(x, now)
        slope = (x0 - last) * per_last
        return torch.addcmul(torch.addcmul(keep * x, pull, x0), bend, slope), (x0, per_h)


def sample(
    denoise: Denoise,
    x: X,
    grid: Grid,
    *,
    solver: Solver = DDIM(),
    noise: Float[Tensor, " steps b *x"] | None = None,
    shift: Shift | None = None,
    constrain: Constrain | None = None,
    constrain_noise: Float[Tensor, " n b *x"] | None = None,
    finish: bool = True,
) -> X:
    """Data from noise `x` at the first of n levels: n - 1 solver steps and, with `finish`, a denoise at the last level.

    `noise` holds one entry per solver step (none for solvers that draw none). `shift` moves x before each step.
    `constrain` is applied at the start, after every change of x, and to the result (there with level None);
    `constrain_noise` holds one entry per level.
    """
    out = x
    for out in _states(denoise, x, grid, solver, noise, shift, constrain, constrain_noise, finish):  # noqa: B007
        pass
    return out


def trace(
    denoise: Denoise,
    x: X,
    grid: Grid,
    *,
    solver: Solver = DDIM(),
    noise: Float[Tensor, " steps b *x"] | None = None,
    shift: Shift | None = None,
    constrain: Constrain | None = None,
    constrain_noise: Float[Tensor, " n b *x"] | None = None,
    finish: bool = True,
) -> Float[Tensor, " states b *x"]:
    """What `sample` passes through: x at each of the n levels and, with `finish`, the result; arguments as there."""
    return torch.stack(list(_states(denoise, x, grid, solver, noise, shift, constrain, constrain_noise, finish)))


def _states(
    denoise: Denoise,
    x: X,
    grid: Grid,
    solver: Solver,
    noise: Tensor | None,
    shift: Shift | None,
    constrain: Constrain | None,
    constrain_noise: Tensor | None,
    finish: bool,
) -> Iterator[X]:
    steps = len(grid.t) - 1
    if solver.draws and (noise is None or len(noise) != steps):
        given = "none" if noise is None else f"{len(noise)} entries"
        raise ValueError(f"{solver} on {steps + 1} levels needs noise with {steps} entries, one per step; got {given}")

    def keep(x: X, i: int) -> X:
        if constrain is None:
            return x
        return constrain(x, points[i], None if constrain_noise is None else constrain_noise[i])

    points, rows = _points(grid, x), _tabulate(solver, grid, x)
    kicks = [None] * steps if noise is None else noise
    memory = solver.init(x)
    x = keep(x, 0)
    yield x
    for i in range(steps):
        now, then = points[i], points[i + 1]
        if shift is not None:
            x = keep(shift(x, now, then), i)
        x, memory = solver.step(denoise, x, now, then, kicks[i], memory, rows[i])
        x = keep(x, i + 1)
        yield x
    if finish:
        x = denoise(x, points[-1])
        yield x if constrain is None else constrain(x, None, None)


def _points(grid: Grid, x: X) -> list[Point]:
    """The grid's levels for the batch of x: views of one row per level, made once."""
    n, b = len(grid.t), len(x)
    t = grid.t.to(x.device, x.dtype).reshape(n, 1).expand(n, b)
    rates = (rate.to(x.device, x.dtype).reshape(n, 1, *_ones(x)).expand(n, b, *_ones(x)) for rate in grid[1:])
    return [Point(*level) for level in zip(t.unbind(), *(rate.unbind() for rate in rates), strict=True)]


def _tabulate(solver: Solver, grid: Grid, x: X) -> list[Row]:
    """The coefficients of all steps, computed in the grid's precision, then rounded to that of x."""
    t = grid.t.reshape(-1, 1)
    alpha, sigma = (rate.reshape(-1, 1, *_ones(x)) for rate in grid[1:])
    table = solver.row(Point(t[:-1], alpha[:-1], sigma[:-1]), Point(t[1:], alpha[1:], sigma[1:]))
    return list(zip(*(entry.to(x.device, x.dtype).unbind() for entry in table), strict=True))


def _ones(x: X) -> tuple[int, ...]:
    return (1,) * (x.ndim - 1)


def _affine(x: X, x0: X, noise: X | None, keep: Tensor, pull: Tensor, kick: Tensor) -> X:
    mean = torch.addcmul(keep * x, pull, x0)
    return mean if noise is None else torch.addcmul(mean, kick, noise)


def _shrink(now: Point, then: Point) -> Tensor:
    """exp(-h), h the step in lam: the share of the noise at `then` that is still in x at `now`."""
    return now.alpha * then.sigma / (then.alpha * now.sigma)


def _lam(point: Point) -> Tensor:
    """log(alpha / sigma), held finite where straight paths start without any signal."""
    return torch.log(point.alpha.clamp(min=1e-20) / point.sigma)


def start_and_noise(shape: tuple[int, ...], levels: int, solver: Solver) -> NoiseSpec:
    """The noise that `sample` needs for rows of `shape` on a grid of so many levels: see `unpack`."""
    start = {"start": Draw("normal", shape)}
    return start | {"steps": Draw("normal", (levels - 1, *shape))} if solver.draws and levels > 1 else start


def unpack(noise: Noise, *, scale: float = 1.0) -> tuple[X, Float[Tensor, " steps b *x"] | None]:
    """The start (`scale` times unit noise) and the noise of the steps, steps first, as `sample` takes them."""
    steps = noise.get("steps")
    return scale * noise["start"], None if steps is None else steps.movedim(1, 0)
