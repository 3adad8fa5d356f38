"""Batches from a million steps, and what the data set costs in memory beside its raw arrays."""

import torch

from benchmarks.measure import Race, Row
from benchmarks.subjects import episodes
from ornstein.data.episodes import Episodes
from ornstein.data.transitions import transitions
from ornstein.data.windows import windows
from ornstein.types import Batches

STEPS, BATCH, HORIZON = 1_000_000, 256, 32


def rows(quick: bool) -> list[Row]:
    """Windows and transitions of a random batch, and memory."""
    recorded, turns = episodes(STEPS), 15 if quick else 51
    data: dict[str, Batches] = {
        f"windows of {HORIZON}": windows(recorded, HORIZON),
        "transitions": transitions(recorded),
    }
    found = []
    for name, batches in data.items():
        race = Race(
            {"ours": lambda batches=batches: batches.gather(torch.randint(len(batches), (BATCH,)))},
            turns=turns,
            block_ms=20,
        )
        ours, more = race.cpu["ours"], {"wall_ours": race.wall["ours"]}
        found.append(Row(f"{BATCH} {name} out of {STEPS:,} steps", ours, bar="< 1 ms", met=ours < 1, more=more))
    for name, batches in data.items():
        ratio = batches.nbytes / raw(recorded)  # pyright: ignore[reportAttributeAccessIssue]
        found.append(Row(f"memory of {name}, over the raw arrays", 0.0, ratio=ratio, bar="<= 1.05", met=ratio <= 1.05))
    return found


def raw(recorded: Episodes) -> int:
    """Bytes of observations, actions, rewards and ends."""
    return sum(
        a.numel() * a.element_size()
        for a in (recorded.obs, recorded.action, recorded.reward, recorded.terminal, recorded.truncated)
    )
