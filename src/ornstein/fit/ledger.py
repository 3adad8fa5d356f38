"""A run's checkpoints: where the run stands, and what has to be put back so that it goes on as if never stopped."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ornstein import __version__, checkpoint
from ornstein.fit.run import Run


@dataclass
class Position:
    """How far a run has come: finished stages with their steps, the present stage, its step, and the seconds spent."""

    done: dict[str, int] = field(default_factory=dict)
    stage: str = ""
    step: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Steps over all stages, which names the checkpoint."""
        return sum(self.done.values()) + self.step

    def ends(self) -> list[int]:
        """The total steps at which the finished stages ended, whose checkpoints are kept."""
        steps = list(self.done.values())
        return [sum(steps[: i + 1]) for i in range(len(steps))]


class Ledger:
    """Finds, reads and writes the checkpoints of one stage of a run, one directory per seed.

    A stage that has begun goes on from the newest step of which every seed has a checkpoint. A stage that is finished
    is restored to its end. A stage that has not begun takes the learners as they are.
    """

    def __init__(self, run: Run, stage: str) -> None:
        self.run, self.folders = run, run.folders()
        self.position = Position(stage=stage)
        self.finished = False
        self.saved: list[Path] = []
        self.dead: dict[int, str] = {}
        steps = [set(checkpoint.steps(folder)) for folder in self.folders]
        common = set.intersection(*steps) if steps else set()
        if common:
            self._enter(max(common), stage)

    def _enter(self, total: int, stage: str) -> None:
        """Take up the position of the checkpoints at this step, and say from which ones this stage is restored."""
        newest = [checkpoint.locate(folder, total) for folder in self.folders]
        positions = [checkpoint.read_json(path / "training_state.json") for path in newest]
        raw = positions[0]
        if raw["stage"] == stage and not self.run.resume:
            raise ValueError(f"{self.folders[0]}: holds another run; choose an empty directory, or resume it")
        self.dead = {i: state["diverged"] for i, state in enumerate(positions) if state["diverged"]}
        done = Position(raw["done"])
        if self.run.resume:
            for i, folder in enumerate(self.folders):
                checkpoint.rewind(folder, total, keep=self.run.keep, spare=done.ends(), good=i not in self.dead)
        if stage in raw["done"]:
            self.finished = True
            end = dict(zip(done.done, done.ends(), strict=True))[stage]
            self.saved = [checkpoint.locate(folder, end) for folder in self.folders]
        elif raw["stage"] == stage:
            self.position = Position(raw["done"], stage, raw["step"], raw["seconds"])
            self.saved = newest
        else:
            self.position = Position(raw["done"] | {raw["stage"]: raw["step"]}, stage, 0, raw["seconds"])

    def restore(self, learners: Sequence[nn.Module]) -> None:
        """Put back the learners' weights, if this stage has begun."""
        for learner, path in zip(learners, self.saved, strict=False):
            checkpoint.restore(learner, checkpoint.read(path).weights, path / "weights.safetensors")

    def states(self) -> list[tuple[dict[str, Tensor], dict[str, Any]]]:
        """The training state of each seed, as `write` was given it; none if the stage has not begun."""
        return [
            (
                checkpoint.read_tensors(path / "training_state.safetensors"),
                checkpoint.read_json(path / "training_state.json"),
            )
            for path in self.saved
        ]

    def write(
        self,
        i: int,
        learner: nn.Module,
        tensors: Mapping[str, Tensor],
        plain: Mapping[str, Any],
        values: Mapping[str, float],
    ) -> None:
        """Write the checkpoint of the seed at a position: its weights, what it takes to go on, and its card."""
        position, weights = self.position, learner.state_dict()
        cause = self.dead.get(i)
        where = {"done": position.done, "stage": position.stage, "step": position.step, "seconds": position.seconds}
        card = {
            "ornstein": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
            "device": str(next(iter(weights.values())).device),
            "mode": self.run.mode,
            "seed": self.run.seeds[i],
            "stage": position.stage,
            "step": position.total,
            "seconds": round(position.seconds, 3),
            "diverged": cause,
            "weights_sha256": digest(weights),
            "values": dict(values),
        }
        checkpoint.write(
            self.folders[i],
            position.total,
            config=dict(self.run.meta),
            weights=weights,
            card=card,
            state=(tensors, where | {"diverged": cause} | dict(plain)),
            keep=self.run.keep,
            spare=position.ends(),
            good=cause is None,
        )

    def last_good(self) -> str:
        """Where to find the last good checkpoint, for an error message."""
        links = [folder / "checkpoints" / "last" for folder in self.folders]
        if links and links[0].exists():
            return f"the last good checkpoint is {links[0]}"
        return "there is no checkpoint yet" if links else "the run keeps no checkpoints"


def digest(weights: Mapping[str, Tensor]) -> str:
    """A SHA-256 over names and values, by which two checkpoints are told to be bit-equal."""
    total = hashlib.sha256()
    for name in sorted(weights):
        total.update(name.encode())
        total.update(weights[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
