"""What makes a data set valid, and the errors that say in one line what is wrong with it and how to mend it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class DataError(ValueError):
    """Data that cannot be used as they are; the message is one line: the field, what was expected, how to mend it."""


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """A context in which every DataError is told with the file or data set that it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def as_floats(name: str, values: Any) -> Tensor:
    """The values as a contiguous float32 tensor, sharing memory where they are that already."""
    return _as_tensor(name, values, torch.float32)


def as_flags(name: str, values: Any) -> Tensor:
    """The values as booleans; numbers count as true where they are not 0."""
    return _as_tensor(name, values, torch.bool)


def as_counts(name: str, values: Any) -> Tensor:
    """The values as int64."""
    return _as_tensor(name, values, torch.int64)


def as_extra(name: str, values: Any) -> Tensor:
    """The values of an extra: floats as float32, other numbers as they are."""
    kept = values if isinstance(values, Tensor) else np.asarray(values)
    whole = not kept.is_floating_point() if isinstance(kept, Tensor) else kept.dtype.kind in "iub"
    return _as_tensor(name, kept, torch.as_tensor(kept[:0]).dtype if whole else torch.float32)


def _as_tensor(name: str, values: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().to(dtype).contiguous()
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"'{name}' holds {array.dtype}, but numbers are expected: convert it to float32 first")
    if dtype == torch.float32 and array.dtype != np.float32:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the check of entries names
            array = array.astype(np.float32)
    if not array.flags.writeable or not array.flags.c_contiguous or not array.dtype.isnative:
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array).to(dtype)


def check_type(name: str, values: Tensor, dtype: torch.dtype) -> None:
    """Refuse other number types than the one that the batches are made of."""
    if values.dtype != dtype:
        raise DataError(f"'{name}' holds {values.dtype}, but {dtype} is expected: convert it")


def check_matrix(name: str, values: Tensor, rows: int, what: str) -> None:
    """Refuse anything that is not a (rows, size) array."""
    if values.ndim != 2 or values.shape[1] == 0:
        raise DataError(
            f"'{name}' has shape {tuple(values.shape)}, but (number of {what}, size) is expected: "
            "flatten each entry to a vector"
        )
    check_rows(name, values, rows, what)


def check_rows(name: str, values: Tensor, rows: int, what: str) -> None:
    """Refuse an array that has not one entry for each of the given rows."""
    if values.ndim == 0 or values.shape[0] != rows:
        raise DataError(
            f"'{name}' has shape {tuple(values.shape)}, but {rows} rows are expected, one for each of the {what}: "
            "cut or complete it"
        )


def check_vector(name: str, values: Tensor, rows: int, what: str) -> None:
    """Refuse anything that is not a (rows,) array."""
    check_rows(name, values, rows, what)
    if values.ndim != 1:
        raise DataError(f"'{name}' has shape {tuple(values.shape)}, but ({rows},) is expected: give one number per row")


def check_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and infinite entries, naming the first such row."""
    if not values.is_floating_point() or values.numel() == 0:
        return
    bad = ~torch.isfinite(values)
    if bad.any():
        where = bad.reshape(len(values), -1).any(1).nonzero().squeeze(1)
        kind = "NaN" if torch.isnan(values[where[0]]).any() else "infinite"
        raise DataError(
            f"'{name}' has {kind} entries (first in row {int(where[0])}; {len(where)} bad rows of {len(values)}), "
            "but finite numbers are expected: drop these episodes or record them again"
        )


def check_lengths(lengths: Tensor) -> None:
    """Refuse an empty data set and episodes without a step."""
    if lengths.ndim != 1 or lengths.numel() == 0:
        raise DataError(
            f"'lengths' has shape {tuple(lengths.shape)}, but at least one episode is expected: record some"
        )
    if int(lengths.min()) < 1:
        episode = int(lengths.argmin())
        raise DataError(
            f"'lengths' has {int(lengths[episode])} steps for episode {episode}, but at least 1 is expected: drop it"
        )


def check_ends(terminal: Tensor, truncated: Tensor, lengths: Tensor) -> None:
    """Refuse episodes that go on after their end, or that end without being marked as terminal or truncated."""
    last = torch.zeros_like(terminal)
    last[lengths.cumsum(0) - 1] = True
    for name, flag in (("terminal", terminal), ("truncated", truncated)):
        early = flag & ~last
        if early.any():
            raise DataError(
                f"'{name}' is true at step {int(early.nonzero()[0])}, which is not the last of its episode: "
                "cut the episode there"
            )
    open_end = last & ~terminal & ~truncated
    if open_end.any():
        raise DataError(
            f"neither 'terminal' nor 'truncated' is true at step {int(open_end.nonzero()[0])}, but one must be at the "
            "last step of an episode: mark it truncated if the recording just stopped"
        )


def check_extras(extras: Mapping[str, Tensor], episodes: int, steps: int) -> None:
    """Refuse extras that belong neither to episodes, nor to steps, nor to observations, and non-finite entries."""
    for name, values in extras.items():
        if values.ndim == 0 or values.shape[0] not in (episodes, steps, steps + episodes):
            raise DataError(
                f"extra '{name}' has shape {tuple(values.shape)}, but one row per episode ({episodes}), per step "
                f"({steps}) or per observation ({steps + episodes}) is expected: cut or complete it"
            )
        check_finite(name, values)
