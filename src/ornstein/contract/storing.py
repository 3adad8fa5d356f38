"""Checks of what a system leaves behind: runs that go on where they were, checkpoints that come back or are refused."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from ornstein import checkpoint
from ornstein.contract.case import Broken, Case, same, tensors
from ornstein.fit import Run
from ornstein.system import load


class _Stopped(BaseException):
    """Ends a run between two checkpoints; not as an error of the score, which would leave a checkpoint behind."""


def resumed(case: Case) -> None:
    """A run that was stopped after a checkpoint goes on and ends like one that was not, bit for bit."""
    scored = 0

    def stop(learner: nn.Module) -> float:
        nonlocal scored
        scored += 1
        if scored == 2:
            raise _Stopped
        return 0.0

    with TemporaryDirectory() as folder:
        options = {"steps": 4, "checkpoint_every": 2, "quiet": True}
        whole = case.train(Run(Path(folder) / "whole", **options))[0]
        with suppress(_Stopped):
            case.train(Run(Path(folder) / "stopped", score=stop, **options))
        again = case.train(Run(Path(folder) / "stopped", resume=True, **options))[0]
    if different := same(tensors(whole), tensors(again)):
        raise Broken(f"{different[0]!r} differs between a resumed and an uninterrupted run ({len(different)} in all)")


def stored(case: Case) -> None:
    """A trained learner comes back bit for bit, buffers that checkpoints leave out included."""
    with TemporaryDirectory() as folder:
        learner = case.train(Run(Path(folder), steps=2, quiet=True))[0]
        _, loaded = load(folder, system=case.system)
    if different := same(tensors(learner), tensors(loaded)):
        raise Broken(
            f"{different[0]!r} did not come back from the checkpoint; register it, or build it from the configuration"
        )


def refused(case: Case) -> None:
    """A checkpoint that lacks a tensor, or has one too many, is refused."""
    with TemporaryDirectory() as folder:
        case.train(Run(Path(folder), steps=1, quiet=True))
        file = checkpoint.locate(Path(folder)) / "weights.safetensors"
        weights = checkpoint.read_tensors(file)
        name = min(weights)
        for what, changed in (
            (f"without {name!r}", {n: t for n, t in weights.items() if n != name}),
            ("with an extra tensor", weights | {"extra": weights[name]}),
        ):
            checkpoint.write_tensors(file, changed)
            try:
                load(folder, system=case.system)
            except ValueError:
                continue
            raise Broken(f"a checkpoint {what} was loaded without an error")


CHECKS: dict[str, Callable[[Case], None]] = {
    "a resumed run ends like an uninterrupted one": resumed,
    "a learner comes back from its checkpoint": stored,
    "a checkpoint with other tensors is refused": refused,
}
