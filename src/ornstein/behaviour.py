"""Models of the behaviour that recorded the data, in continuous time, and actions that are drawn from them once.

What systems in stages share: a diffusion clone is trained first, its samples are stored, and values are learned on
these. This room joins `actor`, `nets` and `data`; what is learned on the stored actions stays in the systems' files.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.actor import DiffusionActor
from ornstein.diffusion.denoiser import Continuous
from ornstein.diffusion.dpm import DPMSolver2, DPMSolver3, Form
from ornstein.diffusion.grid import uniform
from ornstein.diffusion.process import LinearVP
from ornstein.diffusion.solver import DDIM, Solver
from ornstein.nets.umlp import UShapedMLP
from ornstein.noise import draw, generator
from ornstein.types import Spaces

Order = Literal[1, 2, 3]
"""Of a DPM-Solver, which is also its network calls per step."""


def behaviour_model(spaces: Spaces, *, width: int, calls: int, order: Order, form: Form) -> DiffusionActor:
    """A U-shaped clone on the linear VP process with DPM-Solver in evenly spaced times and a last denoise at 1e-3.

    `calls`: of the network per sample, `order` for each step and one for the denoise. Nothing is clamped.
    Source: Chen et al. 2023 (2209.14548), SfBC. Deviates: the official solver ends with steps of lower order, at 1e-3,
    and a step is as wide as its order, so that 15 calls of order 2 make seven steps of 2 / 15 of the time and a last
    one of 1 / 15, not seven of 1 / 7 and a denoise; inside, its steps are split evenly in time, here in log(alpha /
    sigma).
    """
    process, (steps, rest) = LinearVP(), divmod(calls - 1, order)
    if rest or steps < 1:
        raise ValueError(f"calls = {calls}: one denoise after steps of {order} calls each; give 1 + a multiple of that")
    solvers: dict[Order, Solver] = {1: DDIM(), 2: DPMSolver2(process, form), 3: DPMSolver3(process, form)}
    network = UShapedMLP(spaces.act, spaces.obs + spaces.goal, width=width)
    grid = uniform(process, steps + 1, end=1e-3)
    return DiffusionActor(
        network, process, spaces.act, grid=grid, solver=solvers[order], clock=Continuous(), bound=None
    )


@torch.no_grad()
def store(
    actor: DiffusionActor, obs: Float[Tensor, " rows obs"], k: int, seed: int, *, samples: int = 32_768
) -> Float[Tensor, " rows k act"]:
    """`k` actions at each observation, on the CPU, drawn `samples` at a time by generators that the seed names."""
    device, need, rows = actor.sampler.t.device, actor.needs(k), max(1, samples // k)
    made: list[Tensor] = []
    for first, part in enumerate(obs.split(rows)):
        noise = draw(need, len(part), generator("stored actions", seed, first))
        here = {name: values.to(device) for name, values in noise.items()}
        made.append(actor.candidates(part.to(device), here).cpu())
    return torch.cat(made)
