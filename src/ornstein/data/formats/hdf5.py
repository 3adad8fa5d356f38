"""HDF5 files, opened and read so that everything that is wrong with one is told in one line."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ornstein.data.check import DataError

SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open h5py.File of a path; missing, empty, foreign and damaged files are refused."""
    import h5py

    check_file(path, SIGNATURE, "HDF5")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"truncated or damaged HDF5 file ({reason}): copy or download it again") from error


@contextmanager
def created(path: Path) -> Iterator[Any]:
    """A new h5py.File to write to. It is built in memory, since HDF5 crashes the process where a disk is full."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        yield file
    path.write_bytes(buffer.getbuffer())


def check_file(path: Path, signature: bytes, kind: str) -> None:
    """Refuse a missing or empty file, and one that does not begin as files of its kind do."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file: check the path")
    if path.is_dir():
        raise DataError(f"a folder, but a file of kind {kind} is expected: name the file in it")
    with path.open("rb") as file:
        head = file.read(len(signature))
    if not head:
        raise DataError(f"an empty file, but {kind} is expected: copy or download it again")
    if head != signature:
        raise DataError(
            f"not a file of kind {kind} (it begins with {head!r}): give a D4RL HDF5, Minari or NPZ data set"
        )


def datasets(file: Any, group: str) -> list[str]:
    """The names of the numeric arrays in a group; none if there is no such group."""
    inner = file.get(group, {})
    return [name for name in inner if hasattr(inner[name], "dtype") and inner[name].dtype.kind in "fiub"]


def array(group: Any, name: str) -> np.ndarray:
    """The array of that name; a group or nothing at its place is refused, with the names that are there."""
    import h5py

    item = group.get(name)
    if not isinstance(item, h5py.Dataset):
        there = ", ".join(sorted(group)) or "nothing"
        raise DataError(f"'{name}' is missing in {group.name} (it has {there}), but an array is expected: add it")
    return np.asarray(item[()])
