"""Where and how to train, as plain values, and the directories that a run owns."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ornstein import checkpoint
from ornstein.checkpoint.files import sweep
from ornstein.log import Sink
from ornstein.noise import generator
from ornstein.types import Batches
from ornstein.update import Mode

Score = Callable[[nn.Module], float]
OnStage = Callable[[str, Sequence[nn.Module], Batches, int], None]
"""Told the name, the learners, the data and the batch size of each stage before its first step."""


@dataclass(frozen=True)
class Run:
    """Where and how to train. `directory` None keeps everything in memory: no log, no checkpoint.

    `steps` overrides the configuration's, in each stage. `seeds` of length N > 1 train N learners in one process, each
    into `directory/seed-<seed>`: over a leading axis of every tensor with `seed_axis`, else one after the other, which
    is bit for bit like N runs; None takes the axis on a GPU, where it is quicker, and not on a CPU, where it is slower.
    `mode`: "eager" is bit-exact from run to run, "compiled" uses torch.compile, "graphs" replays CUDA graphs.
    `resume`: go on from the newest checkpoint, if there is one. `keep`: how many of the newest checkpoints stay.
    `validation`: share of episodes held out, whose loss is logged at every checkpoint. `score`: called on the learner
    at every checkpoint; the best one is kept beside the last. `init_from`: a checkpoint whose weights training starts
    from. `loss_limit`: a loss beyond it stops the run. `on_stage`: called before the first step of each stage. `meta`:
    plain values that a resumed run must share, stored with it.
    """

    directory: Path | None = None
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    device: str = "cpu"
    mode: Mode = "eager"
    seed_axis: bool | None = None
    resume: bool = False
    checkpoint_every: int = 10_000
    log_every: int = 500
    keep: int = 2
    validation: float = 0.0
    init_from: Path | None = None
    sinks: tuple[Sink, ...] = ()
    quiet: bool = False
    loss_limit: float = 1e9
    score: Score | None = None
    on_stage: OnStage | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that no run can have."""
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds = {self.seeds}: give at least one seed, each once")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps = {self.steps} must be at least 1")
        if not 0.0 <= self.validation < 1.0:
            raise ValueError(f"validation = {self.validation} is a share of the episodes in [0, 1)")
        if self.checkpoint_every < 1 or self.log_every < 1:
            raise ValueError(
                f"checkpoint_every = {self.checkpoint_every} and log_every = {self.log_every} must be at least 1"
            )
        if self.keep < 2:
            raise ValueError(
                f"keep = {self.keep} must be at least 2: several seeds need two to resume at the same step"
            )

    def folders(self) -> list[Path]:
        """One run directory per seed; none for a run in memory."""
        if self.directory is None:
            return []
        return [self.directory] if len(self.seeds) == 1 else [self.directory / f"seed-{seed}" for seed in self.seeds]

    def build(self, factory: Callable[[], nn.Module]) -> list[nn.Module]:
        """One learner per seed, its weights drawn from that seed alone (or taken from `init_from`), on the device."""
        learners = []
        for seed in self.seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                learner = factory()
            if self.init_from is not None:
                own = self.init_from / f"seed-{seed}"
                saved = checkpoint.read(own if own.is_dir() else self.init_from)
                checkpoint.restore(learner, saved.weights, saved.path / "weights.safetensors")
            learners.append(learner.to(self.device))
        return learners

    def split(self, episodes: Any) -> tuple[Any, Any]:
        """Training and held-out episodes; all of them, and None, without a validation share."""
        return episodes.split(self.validation, generator("validation split")) if self.validation else (episodes, None)

    def batches(self, episodes: Any, make: Callable[[Any], Batches]) -> tuple[Batches, Batches | None]:
        """Training and held-out batches of `episodes` (the latter None without a validation share), made by `make`."""
        train, held_out = self.split(episodes)
        return make(train), None if held_out is None else make(held_out)

    def claim(self) -> None:
        """Make the directories this run's own: refuse those of another run, and to resume what is not the same."""
        folders = self.folders()
        if len(folders) > 1 and self.directory is not None:
            _refuse_strangers(self.directory, {folder.name for folder in folders})
        for folder, seed in zip(folders, self.seeds, strict=False):
            record = folder / "run.json"
            identity = json.loads(json.dumps(dict(self.meta) | {"seed": seed}))
            if folder.is_dir():
                sweep(folder)
            if not record.exists():
                _refuse_strangers(folder, set())
                checkpoint.write_json(record, identity)
            elif not self.resume:
                raise ValueError(f"{folder}: holds another run; choose an empty directory, or resume it")
            elif difference := next(_differences(checkpoint.read_json(record), identity), None):
                raise ValueError(
                    f"{folder}: cannot resume, {difference}; choose an empty directory, or the same values"
                )


def _refuse_strangers(folder: Path, own: set[str]) -> None:
    """Refuse a directory with any visible entry besides the run's own."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; a run needs a directory")
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    if strangers := [name for name in there if name not in own]:
        raise ValueError(f"{folder}: holds {strangers[0]!r} and is not this run's; choose an empty directory")


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """What changed between two JSON values, innermost first entries by their dotted names."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {old!r} and is now {new!r}"
