"""One reader and one writer per file format; what they read is always `Episodes`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ornstein.data.episodes import Episodes


def read(name: "Path | str", *, max_episode_steps: int | None = None) -> "Episodes":
    """The episodes of a data set of any known format: see `ornstein.data.open.open_dataset`."""
    from ornstein.data.open import open_dataset

    return open_dataset(name, max_episode_steps=max_episode_steps)


def write(episodes: "Episodes", path: "Path | str") -> None:
    """Write the episodes in the format that the suffix names: see `ornstein.data.open.save_dataset`."""
    from ornstein.data.open import save_dataset

    save_dataset(episodes, path)
