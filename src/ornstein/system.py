"""A published system as a value: source, configuration, presets, the paper's numbers, how it is built and trained."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from ornstein import checkpoint
from ornstein.fit import Run
from ornstein.source import Source
from ornstein.types import Rollouts, Spaces

C = TypeVar("C")


@dataclass(frozen=True)
class System(Generic[C]):
    """The value `SYSTEM` at the end of every system's file; the file's place is its only registration.

    `build`: an untrained learner for these sizes. `train`: one trained learner per seed of the run.
    `presets`: configurations by task; the first is the default. `targets`: the paper's numbers by task. `rollouts`: of
    a system that learns from its own newest steps alone, how it gathers them.
    """

    source: Source
    config: type[C]
    presets: Mapping[str, C]
    targets: Mapping[str, str | float]
    build: Callable[[C, Spaces], nn.Module]
    train: Callable[[C, Any, Run], list[nn.Module]]
    rollouts: Callable[[C], Rollouts] | None = None

    @property
    def module(self) -> str:
        """The module that defines the system, by which a checkpoint names it."""
        return self.config.__module__

    @property
    def name(self) -> str:
        """The short name: the file's."""
        return self.module.rpartition(".")[2]

    def preset(self, task: str | None = None) -> C:
        """The configuration for a task, or the default one."""
        if task is None:
            return next(iter(self.presets.values()))
        if task not in self.presets:
            raise ValueError(f"{self.name} has no preset {task!r}; it has {', '.join(self.presets)}")
        return self.presets[task]

    def run(self, config: C, episodes: Any, run: Run) -> list[nn.Module]:
        """Train on `episodes` (an `Episodes`) into the run's directories, one learner per seed.

        Every checkpoint says which system, configuration, data and sizes it is of; a run with others is not resumed.
        """
        data = {"hash": episodes.hash, "episodes": episodes.n_episodes, "steps": episodes.n_steps}
        return self.train(config, episodes, self.claimed(config, episodes.spaces, run, data))

    def claimed(self, config: C, spaces: Spaces, run: Run, data: Mapping[str, Any]) -> Run:
        """The run that says in every checkpoint what it is of, its directories made its own."""
        what = {"system": self.module, "config": checkpoint.encode(config), "spaces": checkpoint.encode(spaces)}
        run = dataclasses.replace(run, meta={**run.meta, **what, "data": dict(data)})
        run.claim()
        return run


def load(directory: str | Path, *, step: int | str = "last", system: System | None = None) -> tuple[System, Any]:
    """The system of a run directory and its trained learner, in evaluation mode.

    `step`: a checkpoint's step, "last" or "best". `system`: needed for a system defined outside of the package, because
    a checkpoint never makes a file be executed. Damaged, foreign and newer checkpoints raise ValueErrors that name the
    file.
    """
    saved = checkpoint.read(Path(directory), step)
    file = saved.path / "config.json"
    system = _named(saved.config.get("system"), system, file)
    try:
        config = checkpoint.decode(saved.config.get("config"), system.config)
        spaces = checkpoint.decode(saved.config.get("spaces"), Spaces)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}; it was not written by this version of {system.name}") from error
    learner = system.build(config, spaces)
    checkpoint.restore(learner, saved.weights, saved.path / "weights.safetensors")
    return system, learner.eval()


def _named(name: Any, given: System | None, file: Path) -> System:
    """The system that a checkpoint names: the one given, if it is that, or else one of the package."""
    if not isinstance(name, str):
        raise ValueError(f"{file}: names no system; it is not a checkpoint of a system's run")
    if given is not None:
        if given.name != name.rpartition(".")[2]:
            raise ValueError(f"{file}: trained by {name!r}, not by {given.name!r}; pass the system that trained it")
        return given
    if not name.startswith("ornstein.systems."):
        raise ValueError(f"{file}: trained by {name!r} from outside of the package; pass its SYSTEM value or file")
    try:
        return import_module(name).SYSTEM
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{file}: trained by {name!r}, which this version of ornstein does not have") from error
