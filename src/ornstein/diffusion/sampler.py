"""A solver on its grid, as a part of a learner: it declares the noise that it needs and turns it into data."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.diffusion.grid import Grid
from ornstein.diffusion.process import DiscreteVP, point
from ornstein.diffusion.solver import DDIM, Solver, make_plan, sample, start_and_noise, tabulate, unpack
from ornstein.types import Constrain, Denoise, Noise, NoiseSpec, Point, Process, Shift, Time, X


class Sampler(nn.Module):
    """Samples by `solver` on `grid`, from start noise of standard deviation `scale` (1 for variance preserving paths).

    The grid and the solver's coefficients on it live in buffers, so that they are on the learner's device; they are
    made anew from the configuration and are not stored in checkpoints.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    table: Tensor

    def __init__(self, grid: Grid, solver: Solver = DDIM(), *, scale: float = 1.0) -> None:  # noqa: B008 (a frozen value)
        super().__init__()
        for name, values in (grid._asdict() | {"table": tabulate(solver, grid)}).items():
            self.register_buffer(name, values, persistent=False)
        self.solver, self.scale = solver, scale

    @property
    def grid(self) -> Grid:
        """The levels."""
        return Grid(self.t, self.alpha, self.sigma)

    def needs(self, shape: tuple[int, ...], *, copies: int = 0) -> NoiseSpec:
        """The noise of one row of `shape`: "start", and "steps" for solvers that draw; of `copies` samples a row
        for `many`.
        """
        spec = start_and_noise(shape, len(self.t), self.solver)
        if not copies:
            return spec
        return {name: draw._replace(shape=(copies, *draw.shape)) for name, draw in spec.items()}

    def forward(
        self,
        denoise: Denoise,
        noise: Noise,
        *,
        shift: Shift | None = None,
        shifts: int | None = None,
        constrain: Constrain | None = None,
    ) -> X:
        """One sample per row of the noise, which may hold other entries too; `shift` and the rest as in `sample`."""
        start, steps = unpack(noise, scale=self.scale)
        plan = make_plan(self.solver, self.grid, start, table=self.table)
        options = {"shift": shift, "shifts": shifts, "constrain": constrain}
        return sample(denoise, start, plan, solver=self.solver, noise=steps, **options)

    def many(
        self,
        denoise: Denoise,
        noise: Noise,
        *,
        shift: Shift | None = None,
        shifts: int | None = None,
        constrain: Constrain | None = None,
    ) -> Float[Tensor, " b k *x"]:
        """`k` samples per row from noise (b, k, ...); `denoise` meets them as b k rows, those of one row beside
        each other.
        """
        flat = {name: noise[name].flatten(0, 1) for name in ("start", "steps") if name in noise}
        x = self(denoise, flat, shift=shift, shifts=shifts, constrain=constrain)
        return x.unflatten(0, noise["start"].shape[:2])


def drawn_level(process: Process, uniform: Time, like: X, *, first: float = 1e-3) -> Point:
    """The level of a training example from uniform numbers in [0, 1).

    A discrete chain has the levels k / steps with k uniform on 1..steps; else t is uniform on [first, 1).
    """
    if isinstance(process, DiscreteVP):
        return point(process, (torch.floor(uniform * process.steps) + 1) / process.steps, like)
    return point(process, first + (1 - first) * uniform, like)
