"""Following planned positions and velocities with forces; planners act by it, and so do the scripted controllers."""

import torch
from jaxtyping import Float
from torch import Tensor

KP, KD = 16.0, 1.5
"""Force per metre and per metre/second of lag. One unit of force changes the ball's speed by 0.239 m/s in a step, so
both poles of the tracked error lie near 0.8: a lag falls to a tenth within 20 steps and never swings."""


def track(
    obs: Float[Tensor, " n obs"],
    plan: Float[Tensor, " n horizon 4"],
    age: Float[Tensor, " n"],
    *,
    stride: int | float = 1,
    kp: float = KP,
    kd: float = KD,
) -> Float[Tensor, " n 2"]:
    """Forces in [-1, 1] that lead the ball along plans of rows (x, y, vx, vy), one row every `stride` steps.

    `age`: environment steps since the plan's first row was the present. The reference is the plan at age + 1, linear
    between rows; after the last row it rests there. `obs` starts with (x, y, vx, vy).
    Source: Janner et al. 2022 (2205.09991), the maze controller. Deviates: gains for PointMaze's ball instead of 1 and
    1.
    """
    reference = at(plan, (age + 1.0) / stride)
    return (kp * (reference[:, :2] - obs[:, :2]) + kd * (reference[:, 2:] - obs[:, 2:4])).clamp(-1.0, 1.0)


def at(plan: Float[Tensor, " n horizon 4"], row: Float[Tensor, " n"]) -> Float[Tensor, " n 4"]:
    """The plans at fractional rows: linear between rows, at rest on the last one after it."""
    last = plan.shape[1] - 1
    low = row.floor().clamp(0, last)
    share = (row - low).clamp(0.0, 1.0)[:, None]
    index = torch.stack([low, (low + 1).clamp(max=last)], 1).long()[..., None].expand(-1, -1, plan.shape[2])
    before, after = plan.gather(1, index).unbind(1)
    between = before + share * (after - before)
    moving = (row <= last).to(plan.dtype)[:, None]
    return torch.cat([between[:, :2], between[:, 2:] * moving], 1)
