"""Ancestral sampling as a Markov chain of Gaussian steps, the last of which have densities that can be learned from."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ornstein.diffusion.grid import Grid, uniform
from ornstein.diffusion.process import DiscreteVP
from ornstein.diffusion.solver import DDPM, Plan, make_plan, sample, tabulate, trace
from ornstein.types import Denoise, Draw, Noise, NoiseSpec, Point, X


class Chain(nn.Module):
    """All steps of a discrete chain from noise to data, the last `tuned` of which are N(keep x + pull x0, std^2).

    The first steps denoise with one network, the tuned ones with another. In `walk` the standard deviation is at least
    `least_std`, also that of the last step, which has none in `draw`; the noise of the steps is clipped to `clip`.
    The coefficients, made from the process, live in buffers that checkpoints leave out.
    Source: Ren et al. 2024 (2409.00588), section 4.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    quiet: Tensor
    loud: Tensor

    def __init__(self, process: DiscreteVP, tuned: int, *, least_std: float = 0.1, clip: float = 3.0) -> None:
        super().__init__()
        if not 1 <= tuned <= process.steps or least_std <= 0 or clip <= 0:
            raise ValueError(
                f"tuned = {tuned} of {process.steps} steps, least_std = {least_std}, clip = {clip}: tune at least 1 "
                "step and no more than there are; the others must be positive"
            )
        self.solver, self.tuned, self.first, self.clip = DDPM(), tuned, process.steps - tuned, clip
        grid = uniform(process, process.steps)
        quiet = tabulate(self.solver, grid)
        last = quiet.new_tensor([[0.0], [1.0], [0.0]])  # the denoised x itself, with noise only in `walk`
        loud = torch.cat((quiet, last), dim=1)
        loud[2].clamp_(min=least_std)
        for name, values in (grid._asdict() | {"quiet": quiet, "loud": loud}).items():
            self.register_buffer(name, values, persistent=False)

    def needs(self, shape: tuple[int, ...]) -> NoiseSpec:
        """The noise of one row of `shape`, for `draw` and for `walk`."""
        return {"start": Draw("normal", shape), "steps": Draw("normal", (len(self.t), *shape))}

    def draw(self, early: Denoise, late: Denoise, noise: Noise) -> X:
        """One sample a row, its first steps denoised by `early`, the tuned ones by `late`: ancestral sampling as it is
        but for the clipped noise.
        """
        x, plan, kicks = self._arrive(early, noise, self.quiet)
        return sample(late, x, plan, solver=self.solver, noise=kicks[:-1])

    def walk(
        self, early: Denoise, late: Denoise, noise: Noise
    ) -> tuple[Float[Tensor, " b states *x"], Float[Tensor, " b k *x"]]:
        """The states before, between and after the tuned steps, and the log-density of every entry of each step."""
        x, plan, kicks = self._arrive(early, noise, self.loud[:, :-1])
        states = trace(late, x, plan, solver=self.solver, noise=kicks[:-1])
        _, _, std = self._coefficients(kicks)
        states = torch.cat((states[:-1], (states[-1] + std[-1] * kicks[-1]).unsqueeze(0)))
        return states.movedim(0, 1), _log_normal(kicks, std).movedim(0, 1)

    def log_prob(self, late: Denoise, path: Float[Tensor, " b states *x"]) -> Float[Tensor, " b k *x"]:
        """The log-density of every entry of each tuned step of a path; `late` meets its b k starts, those of one row
        beside each other.
        """
        steps = path.movedim(0, 1)
        x = path[:, :-1].flatten(0, 1)
        t, alpha, sigma = (each[self.first :].to(x).repeat(len(path)) for each in (self.t, self.alpha, self.sigma))
        ones = (-1,) + (1,) * (x.ndim - 1)
        x0 = late(x, Point(t, alpha.view(ones), sigma.view(ones))).unflatten(0, (len(path), self.tuned)).movedim(0, 1)
        keep, pull, std = self._coefficients(steps[:-1])
        return _log_normal((steps[1:] - keep * steps[:-1] - pull * x0) / std, std).movedim(0, 1)

    def _arrive(self, early: Denoise, noise: Noise, table: Tensor) -> tuple[X, Plan, Tensor]:
        """The state before the tuned steps, the plan of these, and their noise, one entry per step."""
        x, kicks = noise["start"], noise["steps"].movedim(1, 0).clamp(-self.clip, self.clip)
        plan = make_plan(self.solver, Grid(self.t, self.alpha, self.sigma), x, table=table)
        if self.first:
            before = plan.part(0, self.first)
            x = sample(early, x, before, solver=self.solver, noise=kicks[: self.first], finish=False)
        return x, plan.part(self.first, len(self.t) - 1), kicks[self.first :]

    def _coefficients(self, steps: Float[Tensor, " k b *x"]) -> tuple[Tensor, Tensor, Tensor]:
        """Keep, pull and std of the tuned steps, shaped to multiply one entry per step."""
        ones = (-1,) + (1,) * (steps.ndim - 1)
        keep, pull, std = (each.to(steps).view(ones) for each in self.loud[:, self.first :])
        return keep, pull, std


def _log_normal(z: Tensor, std: Tensor) -> Tensor:
    """The log-density of mean + std z."""
    return -0.5 * z.square() - std.log() - 0.5 * math.log(2 * math.pi)
