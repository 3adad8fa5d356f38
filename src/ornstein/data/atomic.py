"""Files that are written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ornstein.data.check import DataError


@contextmanager
def replacing(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """A temporary place beside `path` to write to, which replaces `path` if the block succeeds, and else vanishes.

    Failures of the disk are told as one OSError that names the path; they leave what was there before as it was.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.parent} does not exist: create it first")
    if path.is_dir() and not folder:
        raise DataError(f"{path}: is a folder, but a file is to be written: give another name")
    place = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        target = place / path.name
        if folder:
            target.mkdir()
        yield target
        _move(target, path, place / "old")
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        message = (
            f"{path}: could not be written ({reason}); nothing was left behind: free some space or write elsewhere"
        )
        raise OSError(error.errno, message) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(new: Path, path: Path, old: Path) -> None:
    """Put the new file or folder in place and on disk; a folder that is there is moved aside first."""
    if path.is_dir():
        path.rename(old)
    elif new.is_file():
        descriptor = os.open(new, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    try:
        new.replace(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
