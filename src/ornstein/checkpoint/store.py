"""The checkpoints of a run: directories `checkpoints/<step>/`, and the links `last` and `best` to two of them.

Each holds config.json, weights.safetensors, card.json, and training_state.safetensors with training_state.json.
"""

import json
import math
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ornstein.checkpoint.files import read_json, read_tensors, remove, replacing, sweep, write_tensors

FORMAT = 1
"""Version of the layout; a newer one is refused by name, an older one is migrated here."""


class Saved(NamedTuple):
    """What a checkpoint directory holds."""

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    card: dict[str, Any]


def write(
    run: Path,
    step: int,
    *,
    config: dict[str, Any],
    weights: Mapping[str, Tensor],
    card: dict[str, Any],
    state: tuple[Mapping[str, Tensor], dict[str, Any]] | None = None,
    keep: int = 2,
    spare: Collection[int] = (),
    good: bool = True,
) -> Path:
    """Write `checkpoints/<step>` whole or not at all, and let `last` and `best` point where they should.

    Kept are the newest `keep`, those at the steps `spare`, and what the links point to. `best` is the one with the
    highest `score` among the values of its card, the first of several. `last` is not moved to one that is not `good`.
    """
    folder = run / "checkpoints"
    target = folder / f"{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    with replacing(target) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text(json.dumps({"format": FORMAT} | config, indent=2) + "\n")
        (temporary / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        write_tensors(temporary / "weights.safetensors", weights)
        if state is not None:
            tensors, position = state
            write_tensors(temporary / "training_state.safetensors", tensors)
            (temporary / "training_state.json").write_text(json.dumps(position, indent=2) + "\n")
        _discard(target)
    if good:
        point(run, "last", target.name)
    _point_to_best(run)
    _prune(run, keep, spare)
    return target


def rewind(run: Path, step: int, *, keep: int = 2, spare: Collection[int] = (), good: bool = True) -> None:
    """Leave the checkpoints and links as `write` would have left them after `step`, wherever it was interrupted."""
    sweep(run / "checkpoints")
    if good:
        point(run, "last", f"{step:08d}")
    for later in [s for s in steps(run) if s > step]:
        _discard(run / "checkpoints" / f"{later:08d}")
    _point_to_best(run)
    _prune(run, keep, spare)


def point(run: Path, name: str, target: str) -> None:
    """Let the link `checkpoints/<name>` point to the sibling `target`, in one step."""
    with replacing(run / "checkpoints" / name) as temporary:
        temporary.symlink_to(target)


def best(run: Path) -> Path | None:
    """The checkpoint with the highest score among those that are there, the first of several; None if none has one."""
    scores: dict[Path, float] = {}
    for step in steps(run):
        path = run / "checkpoints" / f"{step:08d}"
        score = read_json(path / "card.json").get("values", {}).get("score")
        if isinstance(score, int | float) and not math.isnan(score):
            scores[path] = score
    return max(scores, key=scores.__getitem__, default=None)


def steps(run: Path) -> list[int]:
    """The steps of a run's complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def _point_to_best(run: Path) -> None:
    link, found = run / "checkpoints" / "best", best(run)
    if found is None:
        link.unlink(missing_ok=True)
    elif not link.is_symlink() or os.readlink(link) != found.name:
        point(run, "best", found.name)


def _prune(run: Path, keep: int, spare: Collection[int]) -> None:
    folder, there = run / "checkpoints", steps(run)
    linked = {int(os.readlink(folder / name)) for name in ("last", "best") if (folder / name).is_symlink()}
    for step in there[:-keep]:
        if step not in linked | set(spare):
            _discard(folder / f"{step:08d}")


def _discard(path: Path) -> None:
    """Delete a checkpoint, which stops to count in one step, before its files go one by one."""
    if path.is_dir():
        grave = path.parent / f".{path.name}.discarded.{os.getpid()}.tmp"
        remove(grave)
        os.replace(path, grave)
        shutil.rmtree(grave, ignore_errors=True)


def locate(path: Path, step: int | str = "last") -> Path:
    """The checkpoint directory that a run directory, or a checkpoint directory itself, stands for."""
    if (path / "config.json").is_file():
        return path
    name = f"{step:08d}" if isinstance(step, int) else step
    found = path / "checkpoints" / name
    if found.is_dir():
        return found
    here, seeds = [str(s) for s in steps(path)], sorted(p.name for p in path.glob("seed-*"))
    hint = "train into it first"
    if here:
        hint = f"it has {', '.join(here)}"
    elif seeds:
        hint = f"it holds several seeds: name one of {', '.join(seeds)}"
    raise ValueError(f"{path}: no checkpoint {name!r} here; {hint}")


def read(path: Path, step: int | str = "last") -> Saved:
    """The configuration, weights and card of a checkpoint; ValueErrors name damaged files and newer formats."""
    found = locate(path, step)
    file = found / "config.json"
    config = read_json(file)
    version = config.get("format")
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"{file}: is no configuration of a checkpoint (format {version!r}); use another checkpoint")
    if version > FORMAT:
        raise ValueError(
            f"{file}: format {version} is newer than {FORMAT}, the newest that this version reads; upgrade ornstein"
        )
    return Saved(found, config, read_tensors(found / "weights.safetensors"), read_json(found / "card.json"))


def restore(module: nn.Module, weights: Mapping[str, Tensor], origin: Path | str) -> None:
    """Put `weights` into `module`, bit for bit; a missing, extra or misshapen tensor is refused before any change."""
    own = module.state_dict()
    foreign = "the file is not of this system and configuration"
    if missing := sorted(own.keys() - weights.keys()):
        raise ValueError(f"{origin}: tensor {missing[0]!r} is missing ({len(missing)} in all); {foreign}")
    if extra := sorted(weights.keys() - own.keys()):
        raise ValueError(f"{origin}: tensor {extra[0]!r} is unknown ({len(extra)} in all); {foreign}")
    for name, tensor in own.items():
        there, here = _form(weights[name]), _form(tensor)
        if there != here:
            raise ValueError(f"{origin}: tensor {name!r} has {there}, expected {here}; {foreign}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _form(tensor: Tensor) -> str:
    return f"shape {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
