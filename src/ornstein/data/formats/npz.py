"""NPZ files: the layout of `formats.flat` in NumPy's archive, one member per array, never pickled.

The attributes stand as JSON text in a member `attributes`. A file of one's own needs `observations`, `actions`,
`rewards`, `terminals` and `timeouts` only: `numpy.savez(path, observations=..., ...)`.
"""

import json
import zipfile
from pathlib import Path

import numpy as np

from ornstein.data.atomic import replacing
from ornstein.data.check import DataError, naming
from ornstein.data.episodes import Episodes
from ornstein.data.formats.flat import from_arrays, to_arrays
from ornstein.data.formats.hdf5 import check_file

SIGNATURE = b"PK"


def read(path: Path | str, *, max_episode_steps: int | None = None) -> Episodes:
    """The episodes of an NPZ file."""
    with naming(path):
        check_file(Path(path), SIGNATURE, "NPZ")
        try:
            with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            attributes = json.loads(str(arrays.pop("attributes", "{}")))
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"truncated, damaged or pickled NPZ file ({reason}): write it again") from error
        return from_arrays(arrays, attributes, max_episode_steps=max_episode_steps)


def write(episodes: Episodes, path: Path | str) -> None:
    """Write the episodes as NPZ, uncompressed, whole or not at all; `read` gives them back exactly."""
    arrays, attributes = to_arrays(episodes)
    with replacing(Path(path)) as place, place.open("wb") as file:
        np.savez(file, allow_pickle=False, attributes=np.array(json.dumps(attributes)), **arrays)
