"""Four seeds in one process against four trainings of one seed each, in turn; all three systems."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from benchmarks.measure import Race, Row, Work
from benchmarks.subjects import Training, Way, episodes, in_turn
from ornstein.data.transitions import transitions
from ornstein.data.windows import windows
from ornstein.systems.planners import diffuser
from ornstein.systems.policies import diffusion_ql
from ornstein.systems.synthesizers import synther
from ornstein.types import Batches, Spaces
from ornstein.update import OneByOne, Together

SEEDS, BAR = 4, 1.1


def rows(quick: bool) -> list[Row]:
    """The way that `fit` takes on this device, and the other one beside it without a bar."""
    found = []
    for name, (make, data, batch) in cases().items():
        works: dict[str, Work] = {
            "ours": train(make, data, batch, OneByOne),
            "together": train(make, data, batch, Together),
        }
        works["usual"] = in_turn([Training([learner(make, seed)], data, batch) for seed in range(SEEDS)])
        race = Race(works, turns=5 if quick else 15, block_ms=100)
        ratio = race.ratio("ours", "usual")
        more = {
            "together_over_loop": race.ratio("together", "usual"),
            "together": race.cpu["together"],
            "wall_ratio": race.ratio("ours", "usual", "wall"),
        }
        found.append(
            Row(
                f"{name}, {SEEDS} seeds over a loop",
                race.cpu["ours"],
                race.cpu["usual"],
                ratio,
                bar=f"<= {BAR:g}",
                met=ratio <= BAR,
                more=more,
            )
        )
    return found


def cases() -> dict[str, tuple[Callable[[], nn.Module], Batches, int]]:
    """A learner's factory, its data and its batch size for each system; Diffuser and SynthER in their CPU presets."""
    spaces, recorded = Spaces(obs=17, act=6), episodes(20_000)
    maze_spaces, maze = Spaces(obs=4, act=2, goal=2), episodes(20_000, obs=4, act=2)
    ql, plan, rows = diffusion_ql.PRESETS["locomotion"], diffuser.PRESETS["maze-fast"], synther.PRESETS["fast"]
    segments = windows(maze, plan.horizon, stride=plan.stride, pad="none")
    return {
        "Diffusion-QL": (lambda: diffusion_ql.DiffusionQL(ql, spaces), transitions(recorded), ql.batch_size),
        "SynthER fast": (lambda: synther.SynthER(rows, spaces), transitions(recorded), rows.batch_size),
        "Diffuser maze-fast": (lambda: diffuser.Diffuser(replace(plan), maze_spaces), segments, plan.batch_size),
    }


def train(make: Callable[[], nn.Module], data: Batches, batch: int, way: Way) -> Training:
    """All seeds in one training."""
    return Training([learner(make, seed) for seed in range(SEEDS)], data, batch, way=way)


def learner(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """An untrained learner whose weights depend on the seed alone."""
    torch.manual_seed(seed)
    return make()
