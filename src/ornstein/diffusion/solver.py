"""From noise to data: the only sampling loops, and the solvers that need nothing but the two levels of a step.

A step is a pure function of x, the levels `now` and `then`, fresh noise and the solver's memory. What it needs of the
levels alone it computes in `row`, elementwise: so a whole grid is tabulated at once, in the grid's precision, and a
step costs a handful of tensor operations beside the network.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.diffusion.grid import Grid
from ornstein.types import Constrain, Denoise, Draw, Noise, NoiseSpec, Point, Shift, X

Row = tuple[Tensor, ...]
"""What one step needs to know of its two levels; coefficients multiply x as they are."""

Memory = tuple[Tensor, ...]
"""What a solver carries from step to step."""


Table = Float[Tensor, " entries steps"]
"""The rows of a whole grid, one entry after the other."""


class Plan(NamedTuple):
    """All that sampling needs of a grid and a solver, for batches of one shape: see `make_plan`."""

    levels: Sequence[Point]
    rows: Sequence[Row]
    nodes: Point  # all levels in one, for a batch of one row per level

    def part(self, first: int, last: int) -> "Plan":
        """The plan from one level to another."""
        some = slice(first, last + 1)
        return Plan(self.levels[some], self.rows[first:last], Point(*(entry[some] for entry in self.nodes)))


@runtime_checkable
class Solver(Protocol):
    """One step of an integrator from noise to data.

    A solver that inherits from it and says no more than its rows makes one call, draws nothing, remembers nothing, and
    its step is affine.
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
        """What the step between two levels needs of them, elementwise and shaped as their alpha."""
        ...

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The state at `then` and the next memory: keep x + pull x0 + kick z; an empty `row` is computed here."""
        keep, pull, kick = row or self.row(now, then)
        x = torch.addcmul(keep * x, pull, denoise(x, now))
        return (x if noise is None else torch.addcmul(x, kick, noise)), memory


@dataclass(frozen=True)
class DDIM(Solver):
    """Denoising diffusion implicit steps: deterministic at eta = 0, ancestral with the posterior's variance at eta = 1.

    These are also DPM-Solver-1 (eta = 0), SDE-DPM-Solver++(1) (eta = 1) and, in sigma / alpha, the ancestral Euler
    steps of k-diffusion (every eta). Source: Song, Meng, Ermon 2021 (2010.02502), eq. 12 and 16.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an eta that would leave less than nothing of the old noise."""
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta = {self.eta} must lie in [0, 1]: 0 is deterministic, 1 ancestral")

    @property
    def draws(self) -> int:
        """None at eta = 0."""
        return int(self.eta > 0)

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, x0 and z in alpha' x0 + sqrt(sigma'^2 - q^2) eps + q z, eps being that of x and x0."""
        fresh = self.eta**2 * lost(now, then)
        keep = then.sigma / now.sigma * torch.sqrt(1 - fresh)
        return keep, then.alpha - now.alpha * keep, then.sigma * torch.sqrt(fresh)


@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral steps: a draw from the posterior q(x_s | x_t, x0) at the denoised x0, with one of the usual variances.

    `variance`: "small" is the posterior's own (exact for a data point), "large" that of the forward step (exact for
    unit Gaussian data), a number in [0, 1] interpolates their logarithms from small to large, and "optimal" adds to the
    posterior's what x0 itself still varies if the data have standard deviation `data_std` (exact for Gaussian data).
    `temperature` multiplies the standard deviation of the noise.
    Source: Ho, Jain, Abbeel 2020 (2006.11239), eq. 7 and section 3.2; Nichol, Dhariwal 2021 (2102.09672), eq. 15; Bao
    et al. 2022 (2201.06503), eq. 6.
    """

    variance: Literal["small", "large", "optimal"] | float = "small"
    temperature: float = 1.0
    data_std: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a variance outside of what lies between small and large."""
        if self.variance not in ("small", "large", "optimal") and not 0 <= float(self.variance) <= 1:
            raise ValueError(f"variance = {self.variance} must be small (0), large (1), between them, or optimal")

    @property
    def draws(self) -> int:
        """One."""
        return 1

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, x0 and z in c1 x0 + c2 x + sqrt(q) z."""
        keep, pull, small = DDIM(1.0).row(now, then)
        if self.variance == "optimal":
            doubt = self.data_std * now.sigma * torch.rsqrt((self.data_std * now.alpha) ** 2 + now.sigma**2)
            return keep, pull, self.temperature * torch.sqrt(small**2 + (pull * doubt) ** 2)
        large = now.sigma * torch.sqrt(lost(now, then))
        share = float(self.variance == "large") if isinstance(self.variance, str) else self.variance
        return keep, pull, self.temperature * small ** (1 - share) * large**share


@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method for the probability-flow ODE dx = x0 d(alpha) + eps d(sigma).

    It is Euler's method in sigma on variance exploding paths and in t on straight ones; its steps are DDIM's at eta = 0
    on every path. Source: Karras et al. 2022 (2206.00364), algorithm 1 without its second call.
    """

    def row(self, now: Point, then: Point) -> Row:
        """Weights of x, of x0 and of no noise."""
        return DDIM().row(now, then)


@dataclass(frozen=True)
class Heun(Solver):
    """Heun's method for the probability-flow ODE dx = x0 d(alpha) + eps d(sigma): the mean of the slopes at both ends.

    Source: Karras et al. 2022 (2206.00364), algorithm 1, for every path; theirs on variance exploding ones.
    """

    @property
    def calls(self) -> int:
        """One at each end."""
        return 2

    def row(self, now: Point, then: Point) -> Row:
        """Weights of Euler's step, and of its x and x0 in Euler's x plus the step along the slope there."""
        keep, pull, _ = DDIM().row(now, then)
        return keep, pull, 2 - now.sigma / then.sigma, then.alpha * now.sigma / then.sigma - now.alpha

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The middle between x and two steps in a row, the second with the slope at the end of the first."""
        keep, pull, turn, push = row or self.row(now, then)
        euler = torch.addcmul(keep * x, pull, denoise(x, now))
        twice = torch.addcmul(turn * euler, push, denoise(euler, then))
        return torch.lerp(x, twice, 0.5), memory


def sample(
    denoise: Denoise,
    x: X,
    grid: Grid | Plan,
    *,
    solver: Solver = DDIM(),
    noise: Float[Tensor, " steps b *x"] | None = None,
    shift: Shift | None = None,
    shifts: int | None = None,
    constrain: Constrain | None = None,
    constrain_noise: Float[Tensor, " n b *x"] | None = None,
    finish: bool = True,
) -> X:
    """Data from noise `x` at the first of n levels: n - 1 solver steps and, with `finish`, a denoise at the last level.

    `noise` holds one entry per solver step (solvers that draw none ignore it). `shift` moves x before each step, or
    before the first `shifts` of them. `constrain` is applied at the start, after every change of x, and to the result
    (there with level None); `constrain_noise` holds one entry per level. In place of a grid,
    `make_plan(solver, grid, x)` may be given. A `denoise` with a method `along(levels, nodes)`, as `Denoiser.given`
    makes it, is told all levels beforehand.
    """
    out = x
    for out in _states(denoise, x, grid, solver, noise, shift, shifts, constrain, constrain_noise, finish):  # noqa: B007
        pass
    return out


def trace(
    denoise: Denoise,
    x: X,
    grid: Grid | Plan,
    *,
    solver: Solver = DDIM(),
    noise: Float[Tensor, " steps b *x"] | None = None,
    shift: Shift | None = None,
    shifts: int | None = None,
    constrain: Constrain | None = None,
    constrain_noise: Float[Tensor, " n b *x"] | None = None,
    finish: bool = True,
) -> Float[Tensor, " states b *x"]:
    """What `sample` passes through: x at each of the n levels and, with `finish`, the result; arguments as there."""
    return torch.stack(
        list(_states(denoise, x, grid, solver, noise, shift, shifts, constrain, constrain_noise, finish))
    )


def tabulate(solver: Solver, grid: Grid) -> Table:
    """The solver's rows between the neighbours of a grid, in the grid's precision."""
    table = solver.row(Point(*(entry[:-1] for entry in grid)), Point(*(entry[1:] for entry in grid)))
    return torch.stack(torch.broadcast_tensors(*table)) if table else grid.t.new_zeros(0, len(grid.t) - 1)


def make_plan(solver: Solver, grid: Grid, like: X, *, table: Table | None = None) -> Plan:
    """The levels of a grid and the solver's rows between them for batches like this one; worth keeping where it recurs.

    Rows are computed in the grid's precision and rounded to that of `like`; all are views, made once. `table` is
    `tabulate(solver, grid)`, where it is at hand.
    """
    n, b, ones = len(grid.t), len(like), (1,) * (like.ndim - 1)
    t, alpha, sigma = (entry.to(like) for entry in grid)
    nodes = Point(t, alpha.view(n, *ones), sigma.view(n, *ones))
    levels = zip(
        t.view(n, 1).expand(n, b).unbind(),
        *(entry.unsqueeze(1).expand(n, b, *ones).unbind() for entry in nodes[1:]),
        strict=True,
    )
    rates = (tabulate(solver, grid) if table is None else table).to(like)
    rows = zip(*(entry.view(n - 1, 1, *ones).unbind() for entry in rates), strict=True)
    return Plan([Point(*level) for level in levels], list(rows) or [()] * (n - 1), nodes)


def start_and_noise(shape: tuple[int, ...], levels: int, solver: Solver) -> NoiseSpec:
    """The noise that `sample` needs for rows of `shape` on a grid of so many levels: see `unpack`."""
    start = {"start": Draw("normal", shape)}
    return start | {"steps": Draw("normal", (levels - 1, *shape))} if solver.draws and levels > 1 else start


def unpack(noise: Noise, *, scale: float = 1.0) -> tuple[X, Float[Tensor, " steps b *x"] | None]:
    """The start (`scale` times unit noise) and the noise of the steps, steps first, as `sample` takes them."""
    steps = noise.get("steps")
    return scale * noise["start"], None if steps is None else steps.movedim(1, 0)


def lost(now: Point, then: Point) -> Tensor:
    """Share of the noise variance at `then` that x at `now` does not hold: 1 - exp(-2 h), h the step in lam."""
    return 1 - (now.alpha * then.sigma / (then.alpha * now.sigma)) ** 2


def level_of(x: X, t: Tensor, alpha: Tensor, sigma: Tensor) -> Point:
    """The level that a row holds (three entries of one shape), for the batch of x."""
    shape = (len(x),) + (1,) * (x.ndim - 1)
    return Point(t.flatten().expand(len(x)), alpha.expand(shape), sigma.expand(shape))


def _states(
    denoise: Denoise,
    x: X,
    grid: Grid | Plan,
    solver: Solver,
    noise: Tensor | None,
    shift: Shift | None,
    shifts: int | None,
    constrain: Constrain | None,
    constrain_noise: Tensor | None,
    finish: bool,
) -> Iterator[X]:
    """The one loop: x at the first level, after every step, and after the final denoise."""

    def hold(x: X, i: int) -> X:
        return x if constrain is None else constrain(x, levels[i], None if again is None else again[i])

    levels, rows, nodes = grid if isinstance(grid, Plan) else make_plan(solver, grid, x)
    along = getattr(denoise, "along", None)
    denoise = denoise if along is None else along(levels, nodes)
    again = constrain_noise
    draws = _draws(solver, noise, len(rows))
    memory = solver.init(x)
    yield (x := hold(x, 0))
    for i, row in enumerate(rows):
        now, then = levels[i], levels[i + 1]
        if shift is not None and (shifts is None or i < shifts):
            x = hold(shift(x, now, then), i)
        x, memory = solver.step(denoise, x, now, then, draws[i], memory, row)
        yield (x := hold(x, i + 1))
    if finish:
        x = denoise(x, levels[-1])
        yield x if constrain is None else constrain(x, None, None)


def _draws(solver: Solver, noise: Tensor | None, steps: int) -> Sequence[X | None]:
    """One draw per step, or None for each."""
    if not solver.draws or not steps:
        return [None] * steps
    if noise is None or len(noise) != steps:
        given = "none" if noise is None else f"{len(noise)} entries"
        raise ValueError(f"{solver} on {steps + 1} levels needs noise with {steps} entries, one per step; got {given}")
    return noise.unbind()
