"""What planners of whole trajectories are made of: the carried plan, and a denoising loss in which known entries are
given.

This room joins the mathematics of `diffusion` and the trajectory layouts of `data`, which do not know each other.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from ornstein.data.layout import Layout
from ornstein.diffusion.constrain import inpaint
from ornstein.diffusion.denoiser import Denoiser
from ornstein.diffusion.process import corrupt
from ornstein.diffusion.sampler import drawn_level
from ornstein.types import Constrain, Metrics, Noise, Point, Process, Segments


class Plan(NamedTuple):
    """The carry: a plan in the environment's units and the number of environment steps since it was made."""

    obs: Float[Tensor, " n horizon obs"]
    action: Float[Tensor, " n horizon act"]
    age: Float[Tensor, " n"]


def no_plan(layout: Layout, n: int) -> Plan:
    """The carry of n episodes before their first plan."""
    like, s = layout.weight, layout.spaces
    rows = like.new_zeros(n, layout.horizon, s.obs), like.new_zeros(n, layout.horizon, s.act)
    return Plan(*rows, like.new_zeros(n))


def fresh_plan(layout: Layout, x: Float[Tensor, " n horizon channels"]) -> Plan:
    """The carry that holds these normalised trajectories."""
    action, obs = layout.unpack(x)
    return Plan(obs, action, x.new_zeros(len(x)))


def held(layout: Layout, trajectory: Float[Tensor, " b horizon channels"]) -> Constrain:
    """The constraint that holds the known entries at those of `trajectory`."""
    return inpaint(layout.known, trajectory)


def noised(
    process: Process, layout: Layout, x0: Float[Tensor, " b horizon channels"], noise: Noise
) -> tuple[Float[Tensor, " b horizon channels"], Point, Constrain]:
    """A noised trajectory whose known entries are clean, its level, and the constraint that holds them."""
    level, given = drawn_level(process, noise["t"], x0), held(layout, x0)
    return given(corrupt(x0, level, noise["eps"]), level, None), level, given


def trajectory_loss(
    denoiser: Denoiser, layout: Layout, batch: Segments, noise: Noise
) -> tuple[Float[Tensor, ""], Metrics]:
    """Weighted squared error of the trajectory that the network denoises, known entries given, padding left out.

    Source: Janner et al. 2022 (2205.09991), official code, with the trajectory itself predicted.
    """
    x0 = layout.pack(batch)
    x_t, level, given = noised(denoiser.process, layout, x0, noise)
    error = (given(denoiser.output(x_t, level), level, None) - x0).square()
    return (error * layout.weight * batch.mask.unsqueeze(-1)).mean(), {}
