"""Checkpoints: config.json, weights.safetensors, the training state and card.json in one directory, written atomically.

A run directory holds `checkpoints/<step>/` and the relative links `last` and `best`. Nothing in a checkpoint is executable:
tensors are safetensors, the rest is JSON, and a configuration can only name dataclasses of the package.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FORMAT = 1
"""Version of the layout; a newer one is refused by name, an older one is migrated here."""


class Saved(NamedTuple):
    """What a checkpoint directory holds."""

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    card: dict[str, Any]


def encode(value: Any) -> Any:
    """A configuration as JSON: dataclasses become objects with the key `$type`, tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = f"{type(value).__module__}:{type(value).__qualname__}"
        return {"$type": name} | {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"a configuration cannot hold {value!r} of type {type(value).__name__}; use numbers, strings, tuples or dataclasses"
    )


def decode(value: Any, expected: type | None = None) -> Any:
    """The configuration that `encode` wrote. Only dataclasses of `ornstein`, and `expected` itself, are ever built."""
    if isinstance(value, list):
        return tuple(decode(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "$type" not in value:
        return {key: decode(item) for key, item in value.items()}
    kind = expected if expected is not None else _dataclass(value["$type"])
    known = {field.name for field in dataclasses.fields(kind)}
    given = {key: item for key, item in value.items() if key != "$type"}
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"configuration of {kind.__qualname__} has unknown fields {unknown}; it knows {sorted(known)}")
    return kind(**{key: decode(item) for key, item in given.items()})


def _dataclass(name: str) -> type:
    module, _, attribute = name.partition(":")
    if not module.startswith("ornstein."):
        raise ValueError(f"configuration names the type {name!r}; only dataclasses of ornstein are loaded from a file")
    kind = getattr(import_module(module), attribute, None)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise ValueError(f"configuration names {name!r}, which is no dataclass of this version of ornstein")
    return kind


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to, moved to `path` in one step at the end and removed if anything fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or a ValueError that names it."""
    try:
        value = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}); restore the file or use another checkpoint"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds {type(value).__name__}, expected a JSON object; restore the file")
    return value


def write(
    run: Path,
    step: int,
    *,
    config: dict[str, Any],
    weights: Mapping[str, Tensor],
    card: dict[str, Any],
    state: tuple[Mapping[str, Tensor], dict[str, Any]] | None = None,
    keep: int = 2,
) -> Path:
    """Write `checkpoints/<step>` whole or not at all, point `last` to it and drop all but the newest `keep` and the best."""
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{step:08d}"
    if target.exists():
        shutil.rmtree(target)
    with replacing(target) as temporary:
        temporary.mkdir()
        (temporary / "config.json").write_text(json.dumps({"format": FORMAT} | config, indent=2) + "\n")
        (temporary / "card.json").write_text(json.dumps(card, indent=2) + "\n")
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()},
            temporary / "weights.safetensors",
        )
        if state is not None:
            tensors, position = state
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
                temporary / "training_state.safetensors",
            )
            (temporary / "training_state.json").write_text(json.dumps(position, indent=2) + "\n")
    point(run, "last", target.name)
    _prune(folder, keep)
    return target


def point(run: Path, name: str, target: str) -> None:
    """Let the link `checkpoints/<name>` point to the sibling `target`, in one step."""
    with replacing(run / "checkpoints" / name) as temporary:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)


def steps(run: Path) -> list[int]:
    """The steps of a run's complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.is_dir()) if folder.is_dir() else []


def _prune(folder: Path, keep: int) -> None:
    best = os.readlink(folder / "best") if (folder / "best").is_symlink() else ""
    names = sorted(path.name for path in folder.glob("[0-9]*") if path.is_dir())
    for name in names[:-keep]:
        if name != best:
            shutil.rmtree(folder / name)
    for stray in folder.glob(".*.tmp"):
        if not stray.name.endswith(f".{os.getpid()}.tmp"):
            shutil.rmtree(stray, ignore_errors=True)


def locate(path: Path, step: int | str = "last") -> Path:
    """The checkpoint directory that a run directory, or a checkpoint directory itself, stands for."""
    if (path / "config.json").is_file():
        return path
    name = f"{step:08d}" if isinstance(step, int) else step
    found = path / "checkpoints" / name
    if not found.is_dir():
        here = [f"{s:08d}" for s in steps(path)]
        seeds = sorted(p.name for p in path.glob("seed-*"))
        hint = (
            f"it has {here}"
            if here
            else f"it holds several seeds: name one of {seeds}"
            if seeds
            else "train into it first"
        )
        raise ValueError(f"{path}: no checkpoint {name!r} here; {hint}")
    return found


def read(path: Path, step: int | str = "last") -> Saved:
    """The configuration, weights and card of a checkpoint; damaged files and newer formats raise ValueErrors that name them."""
    found = locate(path, step)
    config = read_json(found / "config.json")
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{found / 'config.json'}: format {config.get('format')!r}, this version reads {FORMAT}; "
            "load it with the version of ornstein that wrote it, or a newer one"
        )
    return Saved(found, config, read_tensors(found / "weights.safetensors"), read_json(found / "card.json"))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or a ValueError that names it."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not readable as safetensors ({error}); use another checkpoint of the run") from error


def restore(module: nn.Module, weights: Mapping[str, Tensor], origin: Path | str) -> None:
    """Put `weights` into `module`, bit for bit; a missing, extra or misshapen tensor is refused before anything changes."""
    own = module.state_dict()
    if missing := sorted(own.keys() - weights.keys()):
        raise ValueError(
            f"{origin}: tensor {missing[0]!r} is missing ({len(missing)} in all); the file is not of this system and configuration"
        )
    if extra := sorted(weights.keys() - own.keys()):
        raise ValueError(
            f"{origin}: tensor {extra[0]!r} is unknown ({len(extra)} in all); the file is not of this system and configuration"
        )
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise ValueError(
                f"{origin}: tensor {name!r} has shape {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}; "
                "the file is not of this system and configuration"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])
