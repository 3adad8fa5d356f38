"""D4RL HDF5 files: the layout of `formats.flat` in HDF5."""

from collections.abc import Sequence
from pathlib import Path

from ornstein.data.atomic import replacing
from ornstein.data.check import naming
from ornstein.data.episodes import Episodes
from ornstein.data.formats.flat import STEPS, from_arrays, infos_of, next_observations, to_arrays
from ornstein.data.formats.hdf5 import array, created, datasets, opened


def read(path: Path | str, *, max_episode_steps: int | None = None, infos: Sequence[str] = ()) -> Episodes:
    """The episodes of a D4RL file. `infos` names further arrays of its group `infos` to keep as extras.

    `max_episode_steps` is needed for old sets without `timeouts` (D4RL: locomotion 1000, kitchen 280).
    """
    with naming(path), opened(Path(path)) as file:
        attributes = dict(file.attrs)
        names = [name for name in STEPS if name in file]
        names += [f"infos/{name}" for name in {*infos_of(attributes)} if f"infos/{name}" in file]
        names += [f"infos/{name}" for name in infos] + [f"episodes/{name}" for name in datasets(file, "episodes")]
        arrays = {name: array(file, name) for name in dict.fromkeys(names)}
        return from_arrays(arrays, attributes, max_episode_steps=max_episode_steps)


def write(episodes: Episodes, path: Path | str) -> None:
    """Write the episodes in D4RL's layout, whole or not at all; `read` gives them back exactly.

    `next_observations` is written as well, where all of them are known.
    """
    arrays, attributes = to_arrays(episodes)
    if bool(episodes.final_known.all()):
        arrays["next_observations"] = next_observations(episodes)
    with replacing(Path(path)) as place, created(place) as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip", compression_opts=1, shuffle=True)
        file.attrs.update(attributes)
