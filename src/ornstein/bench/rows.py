"""The rows of a bench: one JSON object a line in `rows.jsonl`, appended whole; one cut short by a kill is dropped."""

import json
import os
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, str, int]
"""The names of a system and a data set as they were given, the hash, and the seed."""

TIMES = ("time", "train_seconds", "eval_seconds", "act_ms_median", "plan_ms_median", "fqe_seconds")
"""Fields that differ from run to run; all others are bit for bit the same on one machine."""


def read(file: Path, *, mend: bool = False) -> list[Row]:
    """The rows of a file, none if it is not there; a last line that a kill cut short is left out, with a note.

    `mend`: cut it off the file as well. A line in the middle that is no row is refused. A row whose return is null, as
    the bench once wrote where it was not finite, holds no result: it is left out, so that it is made anew.
    """
    if not file.exists():
        return []
    data = file.read_bytes()
    whole, newline, torn = data.rpartition(b"\n")
    if torn:
        print(f"{file}: dropped a last line that was cut short ({len(torn)} bytes)", file=sys.stderr)
        if mend:
            with file.open("r+b") as opened:
                opened.truncate(len(whole) + len(newline))
                os.fsync(opened.fileno())
    rows = [_row(file, number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
    return [row for row in rows if row is not None]


def append(file: Path, row: Row) -> None:
    """Add one row, on the disk before this returns; only one process may do this."""
    line = (json.dumps(row, allow_nan=False) + "\n").encode()
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    before = os.fstat(descriptor).st_size
    try:
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    except OSError:  # a full disk: leave no half of a line for the next row to follow
        os.ftruncate(descriptor, before)
        raise
    finally:
        os.close(descriptor)


def key(row: Row) -> Key:
    """What tells one row from all others: the names too, as a report looks for each system and data set by its name."""
    return row["arm"], row["data"], row["config_hash"], row["seed"]


def _row(file: Path, number: int, line: bytes) -> Row | None:
    """The row of a line; None if it holds no result."""
    try:
        row = json.loads(line)
        key(row)
        return None if row["return_mean"] is None else row
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file}: line {number} is no row of a bench ({error!r}); restore or remove the line"
        ) from error
