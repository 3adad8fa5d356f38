"""Data sets as plain arrays in a cache folder, so that they are decompressed and cut once, then mapped into memory.

The name of an entry is the SHA-256 of the source files and the reader's options, so an entry never goes stale; the
entry's own content hash is compared each time it is opened, so a damaged one is noticed and built again.
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ornstein.data.atomic import replacing
from ornstein.data.episodes import TYPES, Episodes

VERSION = 1
"""Part of every entry's name; raised whenever a reader gives other episodes for the same file."""

CHUNK = 1 << 22


def cache_folder() -> Path:
    """Where data sets are cached: $ORNSTEIN_CACHE, or the system's place for caches."""
    if chosen := os.environ.get("ORNSTEIN_CACHE"):
        return Path(chosen) / "data"
    home = Path.home()
    places = {
        "Darwin": home / "Library" / "Caches",
        "Windows": Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")),
    }
    place = places.get(platform.system(), Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")))
    return place / "ornstein" / "data"


def cached(sources: Sequence[Path], options: str, read: Callable[[], Episodes]) -> Episodes:
    """The episodes that `read` gives, from the cache if these files were read with these options before."""
    entry = cache_folder() / _name(sources, options)
    found = load(entry)
    if found is not None:
        return found
    episodes = read()
    store(episodes, entry)
    return load(entry) or episodes


def load(entry: Path) -> Episodes | None:
    """The episodes of an entry, mapped into memory (copied on write); None if it is missing, incomplete or damaged."""
    try:
        told = json.loads((entry / "entry.json").read_text())
        names = [*TYPES, *(f"extras/{name}" for name in told["extras"])]
        arrays = {name: torch.from_numpy(np.load(entry / _file(name), mmap_mode="c")) for name in names}
        episodes = Episodes(
            **{name: arrays[name] for name in TYPES},
            extras={name: arrays[f"extras/{name}"] for name in told["extras"]},
            action_low=tuple(told["action_low"]),
            action_high=tuple(told["action_high"]),
            env=told["env"],
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return episodes if episodes.hash == told["hash"] else None


def store(episodes: Episodes, entry: Path) -> None:
    """Write an entry, whole or not at all."""
    told = {
        "hash": episodes.hash,
        "extras": list(episodes.extras),
        "action_low": episodes.action_low,
        "action_high": episodes.action_high,
        "env": episodes.env,
    }
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with replacing(entry, folder=True) as place:
            for name, values in episodes.arrays().items():
                np.save(place / _file(name), values.numpy())
            (place / "entry.json").write_text(json.dumps(told))
    except OSError as error:
        if load(entry) is None:  # else another process was quicker
            reason = error.strerror or str(error).splitlines()[0]
            message = (
                f"{reason}; this was the cache: set ORNSTEIN_CACHE to a folder with room, or open with cache=False"
            )
            raise OSError(error.errno, message) from error


def _file(name: str) -> str:
    return f"{name.replace('/', '.')}.npy"


def _name(sources: Sequence[Path], options: str) -> str:
    digest = hashlib.sha256(f"{VERSION} {options}".encode())
    for source in sources:
        digest.update(source.name.encode())
        with source.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
