"""Sampling whose noise is chosen, not drawn: another model moves in the noise space of a diffusion model."""

from collections.abc import Callable
from dataclasses import dataclass

from ornstein.diffusion.solver import Memory, Row, Solver
from ornstein.types import Denoise, Point, X


@dataclass(frozen=True)
class Steered(Solver):
    """Another solver with `steer(x, now)` in the place of its fresh noise; the noise handed in is added to that.

    Every step stays differentiable in x and in what steers, so a gradient reaches the choice through the whole chain.
    """

    steer: Callable[[X, Point], X]
    solver: Solver

    def __post_init__(self) -> None:
        """Refuse a solver that has no noise to choose."""
        if not self.solver.draws:
            raise ValueError(
                f"{self.solver} draws no noise that could be steered: choose one that does, such as DDPM()"
            )

    @property
    def calls(self) -> int:
        """Those of the other solver."""
        return self.solver.calls

    @property
    def draws(self) -> int:
        """Those of the other solver."""
        return self.solver.draws

    def init(self, x: X) -> Memory:
        """The other solver's memory."""
        return self.solver.init(x)

    def row(self, now: Point, then: Point) -> Row:
        """The other solver's rows."""
        return self.solver.row(now, then)

    def step(
        self, denoise: Denoise, x: X, now: Point, then: Point, noise: X | None, memory: Memory, row: Row = ()
    ) -> tuple[X, Memory]:
        """The other solver's step, with the chosen noise."""
        chosen = self.steer(x, now)
        return self.solver.step(denoise, x, now, then, chosen if noise is None else chosen + noise, memory, row)
