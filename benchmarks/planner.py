"""Diffuser: a value-guided plan of the official sizes; 64 candidates, 20 steps, two moves up the value before each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Race, Row, floor
from benchmarks.subjects import copy_layers
from benchmarks.usual.diffuser import Planner
from ornstein.noise import draw, generator
from ornstein.systems.planners.diffuser import PRESETS, Diffuser
from ornstein.types import Spaces

SIZES = {"transition 23": Spaces(obs=17, act=6), "transition 14": Spaces(obs=11, act=3)}
BAR = 1.15


def rows(quick: bool) -> list[Row]:
    """Both transition sizes of the published locomotion tasks, or one of them."""
    found = []
    for name, spaces in list(SIZES.items())[: 1 if quick else None]:
        state = np.random.default_rng(0).standard_normal(spaces.obs).astype(np.float32)
        learner, usual = make(spaces), Planner(spaces.obs, spaces.act)
        plan = plan_of(learner, state)
        works = {"ours": plan, "usual": lambda u=usual, s=state: u.plan(torch.from_numpy(s))[0, 0, : u.act].numpy()}
        found.append(
            Race(works, turns=3 if quick else 7, block_ms=1).row(f"Diffuser guided plan, {name}", BAR, floor(plan))
        )
    return found


def make(spaces: Spaces, seed: int = 0) -> Diffuser:
    """An untrained planner of the locomotion preset."""
    torch.manual_seed(seed)
    return Diffuser(PRESETS["locomotion"], spaces).eval()


def plan_of(learner: Diffuser, state: np.ndarray) -> Callable[[], np.ndarray]:
    """One plan and its first action, as `evaluate` asks for them."""
    source = generator("plan")

    @torch.no_grad()
    def plan() -> np.ndarray:
        obs = torch.as_tensor(state)[None]
        carry = learner.plan(obs, learner.start(1), draw(learner.noise, 1, source))
        return learner.act(obs, carry, {})[0].numpy()

    return plan


def match(learner: Diffuser, usual: Planner) -> None:
    """Give the reference the weights of our averaged networks."""
    ours: Any = learner.ema.network
    theirs: Any = usual.network
    pairs = [(ours.time, theirs.time), (ours.head, theirs.last), (ours.middle, theirs.middle)]
    for levels, moves, blocks in ((ours.down, ours.shrink, theirs.down), (ours.up, ours.grow, theirs.up)):
        pairs += zip(levels, (block[:2] for block in blocks), strict=True)
        pairs += zip(moves, (block[2] for block in blocks[: len(moves)]), strict=True)
    value: Any = learner.value_ema
    pairs += [(value.time, usual.value.time), (value.head, usual.value.last)]
    parts: Any = [*usual.value.down, *usual.value.middle]
    pairs += zip(value.levels, (part[:-1] for part in parts), strict=True)
    pairs += zip(value.shrink, (part[-1] for part in parts), strict=True)
    for pair in pairs:
        copy_layers(*pair)
