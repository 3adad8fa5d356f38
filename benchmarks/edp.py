"""EDP beside Diffusion-QL, at equal networks: what one network call per actor update saves, at 15 steps and at 100.

Both sides are ours. The actor's step is the mechanism, and the bar is on it. A whole update also trains the critics,
and with "td3" draws target actions by the solver's 16 calls, one more than a chain of 15 steps takes; so at 15 steps it
saves less, and at 100 almost all.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from benchmarks.measure import Race, Row, floor
from benchmarks.subjects import Training, episodes
from ornstein.data.transitions import transitions
from ornstein.noise import draw, generator
from ornstein.systems.policies import diffusion_ql, edp
from ornstein.types import Batches, Descend, Spaces
from ornstein.update import Update

SPACES, BATCH = Spaces(obs=17, act=6), 256
BAR = 4.0


def rows(quick: bool) -> list[Row]:
    """Diffusion-QL's time over EDP's: the actor's step, the update with each learner, the update at 100 steps."""
    turns, data = 5 if quick else 15, transitions(episodes(20_000))
    found = []
    for what, make, steps, bar in (
        ("actor step", actor_step, 15, BAR),
        ("actor step", actor_step, 100, BAR),
        ("update, td3", update, 15, None),
        ("update, iql", update, 15, None),
        ("update, td3", update, 100, BAR),
    ):
        learner = "iql" if what.endswith("iql") else "td3"
        sides = {
            "ours": make(edp.EDP(replace(edp.BASE, learner=learner, diffusion_steps=steps), SPACES), data),
            "usual": make(diffusion_ql.DiffusionQL(replace(diffusion_ql.BASE, diffusion_steps=steps), SPACES), data),
        }
        row = Race(sides, turns=turns, block_ms=100).row(
            f"EDP {what}, over Diffusion-QL's at {steps} steps", bar or 0.0, floor(sides["ours"])
        )
        found.append(row if bar else replace(row, bar="", met=None))
    return found


def update(learner: nn.Module, data: Batches) -> Callable[[], Any]:
    """One update of everything."""
    return Training([learner], data, BATCH)


def actor_step(learner: nn.Module, data: Batches) -> Callable[[], Any]:
    """One gradient step of the actor, its noise drawn as in training."""
    phases: Any = learner.phases()  # pyright: ignore[reportCallIssue]
    (phase,) = [each for each in phases if isinstance(each, Descend) and each.name == "actor"]
    batch, source, both = data.gather(torch.arange(BATCH)), generator("actor step"), Update([learner], steps=10_000)
    return lambda: both.run((phase,), 0, batch, {"actor": draw(phase.noise, BATCH, source)})
