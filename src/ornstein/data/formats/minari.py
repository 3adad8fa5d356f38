"""Minari data sets in HDF5: a folder with `data/main_data.hdf5` (one group per episode) and `data/metadata.json`.

Observations have T + 1 rows, actions, rewards, terminations and truncations T. Goal tasks store observations as a group
with `observation` and `desired_goal`; the goal becomes the extra `goal`. Other extras of ours stand under `infos`, and
`metadata.json` lists them as `ornstein_extras`. The package minari itself is needed only to download a data set by
name, and for Arrow storage. Source: Younis et al. 2024, Minari (Farama Foundation).
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ornstein.data.atomic import replacing
from ornstein.data.check import DataError, as_extra, as_flags, naming
from ornstein.data.episodes import Episodes
from ornstein.data.formats.hdf5 import array, created, opened
from ornstein.data.goal import goal_per_episode

MAIN, METADATA = "main_data.hdf5", "metadata.json"
VERSION = "0.5.0"
"""The version of the layout that is written, which Minari 0.5 reads."""

Record = dict[str, Any]


def locate(name: Path | str) -> Path | None:
    """The folder that holds the data of a Minari set: given itself, by its parent, or by id; None if it is not here."""
    root = Path(os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets"))
    for folder in (Path(name), Path(name) / "data", root / name / "data"):
        if (folder / MAIN).is_file() or (folder / METADATA).is_file():
            return folder
    return None


def read(name: Path | str) -> Episodes:
    """The episodes of a Minari set, named by its folder or by its id; one that is not here is downloaded by minari."""
    folder = locate(name)
    with naming(name):
        if folder is None:
            folder = _download(str(name))
        metadata = _metadata(folder / METADATA)
        if (folder / MAIN).is_file():
            with opened(folder / MAIN) as file:
                return _gather(_records(file), metadata)
        return _gather(_records_by_minari(folder), metadata)


def write(episodes: Episodes, path: Path | str) -> None:
    """Write a Minari set as a folder, whole or not at all; minari and `read` open it.

    Minari has no word for an unknown final observation: data with such are refused.
    """
    if not bool(episodes.final_known.all()):
        raise DataError(
            f"{path}: {int((~episodes.final_known).sum())} episodes end with an unknown observation, but Minari stores "
            "it: cut them by `without_unknown()`, or write HDF5 or NPZ"
        )
    with replacing(Path(path), folder=True) as place:
        (place / "data").mkdir()
        (place / "data" / METADATA).write_text(json.dumps(_describe(episodes, Path(path).name)))
        with created(place / "data" / MAIN) as file:
            for e in range(episodes.n_episodes):
                group = file.create_group(f"episode_{e}")
                group.attrs.update({"id": e, "total_steps": int(episodes.lengths[e])})
                for name, values in _episode(episodes, e).items():
                    group.create_dataset(name, data=values)


def _episode(episodes: Episodes, e: int) -> dict[str, np.ndarray]:
    """The arrays of one episode by their names in its group."""
    begin, count = int(episodes.offsets[e]), int(episodes.lengths[e])
    steps, rows = slice(begin, begin + count), slice(begin + e, begin + e + count + 1)
    cut = {"episode": slice(e, e + 1), "step": steps, "row": rows}
    arrays = {
        "actions": episodes.action[steps],
        "rewards": episodes.reward[steps],
        "terminations": episodes.terminal[steps],
        "truncations": episodes.truncated[steps],
        "observations/observation" if "goal" in episodes.extras else "observations": episodes.obs[rows],
    }
    for name, values in episodes.extras.items():
        own = values[cut[episodes.belongs_to(name)]]
        if name == "goal":
            at = torch.arange(count + 1).clamp(max=len(own) - 1)
            arrays["observations/desired_goal"] = own[at]
        else:
            arrays[f"infos/{name}"] = own
    return {name: values.numpy() for name, values in arrays.items()}


def _describe(episodes: Episodes, name: str) -> dict[str, Any]:
    sizes = episodes.spaces
    obs: dict[str, Any] = _box(sizes.obs, [-np.inf] * sizes.obs, [np.inf] * sizes.obs)
    if sizes.goal:
        goal = _box(sizes.goal, [-np.inf] * sizes.goal, [np.inf] * sizes.goal)
        obs = {"type": "Dict", "subspaces": {"observation": obs, "desired_goal": goal}}
    number = name.rpartition("-v")[2]
    return {
        "dataset_id": name if number.isdigit() and number != name else f"{name}-v0",
        "minari_version": VERSION,
        "data_format": "hdf5",
        "total_episodes": episodes.n_episodes,
        "total_steps": episodes.n_steps,
        "dataset_size": round(episodes.nbytes / 1e6, 1),
        "observation_space": json.dumps(obs),
        "action_space": json.dumps(_box(sizes.act, list(sizes.action_low), list(sizes.action_high))),
        "ornstein_env": episodes.env,
        "ornstein_extras": {name: episodes.belongs_to(name) for name in episodes.extras if name != "goal"},
    }


def _box(size: int, low: list[float], high: list[float]) -> dict[str, Any]:
    return {"type": "Box", "dtype": "float32", "shape": [size], "low": low, "high": high}


def _metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        metadata = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path.name} is damaged ({error}), but JSON is expected: copy it again") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path.name} holds no JSON object: copy it again")
    return metadata


def _records(file: Any) -> Iterator[Record]:
    """One dictionary of arrays per episode, in the order of their numbers."""
    names = [name for name in file if name.startswith("episode_")]
    if not names:
        raise DataError(
            f"no groups 'episode_0', ... (there are {', '.join(sorted(file)) or 'none'}): give a Minari set"
        )
    for name in sorted(names, key=lambda name: int(name.rpartition("_")[2])):
        group = file[name]
        record: Record = {key: array(group, key) for key in ("actions", "rewards", "terminations", "truncations")}
        inner = group.get("observations")
        if hasattr(inner, "keys"):
            record["observations"] = {key: inner[key] for key in inner}
        else:
            record["observations"] = array(group, "observations")
        record["infos"] = dict(group.get("infos", {}))
        yield record


def _records_by_minari(folder: Path) -> Iterator[Record]:
    """The same through the package minari, for storage that is not HDF5."""
    try:
        data = _minari().MinariDataset(folder)
    except (ImportError, KeyError, ValueError) as error:
        raise DataError(
            f"no {MAIN}, and minari cannot read the storage ({error}): pip install 'minari[all]'"
        ) from error
    for episode in data.iterate_episodes():
        yield {
            "actions": episode.actions,
            "rewards": episode.rewards,
            "terminations": episode.terminations,
            "truncations": episode.truncations,
            "observations": episode.observations,
            "infos": episode.infos or {},
        }


def _gather(records: Iterator[Record], metadata: Mapping[str, Any]) -> Episodes:
    kinds = dict(metadata.get("ornstein_extras", {}))
    obs, action, reward, ends, goals = [], [], [], [], []
    extras: dict[str, list[np.ndarray]] = {name: [] for name in kinds}
    for e, record in enumerate(records):
        own, goal = _observations(record["observations"], e)
        obs.append(own)
        goals += [] if goal is None else [goal]
        action.append(record["actions"])
        reward.append(record["rewards"])
        ends.append(_ended(record, e))
        for name in kinds:
            if name not in record["infos"]:
                raise DataError(
                    f"'infos/{name}' is missing in episode {e}, but {METADATA} lists it: copy the set again"
                )
            extras[name].append(np.asarray(record["infos"][name][()]))
    joined = {name: as_extra(name, np.concatenate(parts)) for name, parts in extras.items()}
    low, high = _bounds(metadata)
    episodes = Episodes.from_lists(obs, action, reward, terminal=ends, extras=joined, action_low=low, action_high=high)
    if goals:
        goal = as_extra("desired_goal", np.concatenate(goals))
        episodes = replace(episodes, extras={"goal": goal_per_episode(goal, episodes.lengths), **episodes.extras})
    return replace(episodes, env=_environment(metadata))


def _observations(given: Any, episode: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Observations and goals (T + 1 rows each; None without goals) of one episode."""
    if not isinstance(given, Mapping):
        return np.asarray(given), None
    if "observation" not in given:
        raise DataError(
            f"observations of episode {episode} are parts {sorted(given)}, but one array, or 'observation' and "
            "'desired_goal', are expected: flatten them"
        )
    goal = given.get("desired_goal")
    return np.asarray(given["observation"]), None if goal is None else np.asarray(goal)


def _ended(record: Record, episode: int) -> bool:
    """Whether the episode truly ended; it must not have done so before its last step."""
    for name in ("terminations", "truncations"):
        flags = as_flags(name, record[name])
        if bool(flags[:-1].any()):
            raise DataError(
                f"'{name}' of episode {episode} is true at step {int(flags.nonzero()[0])}, which is not its last: "
                "cut the episode there"
            )
    flags = as_flags("terminations", record["terminations"])
    return len(flags) > 0 and bool(flags[-1])


def _bounds(metadata: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    space = _inner(metadata, "action_space")
    if space.get("type") != "Box" or len(space.get("shape", ())) != 1:
        return (), ()
    return tuple(map(float, space["low"])), tuple(map(float, space["high"]))


def _environment(metadata: Mapping[str, Any]) -> str:
    return str(metadata.get("ornstein_env") or _inner(metadata, "env_spec").get("id", ""))


def _inner(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object that the metadata hold as JSON text; empty if they do not."""
    try:
        told = json.loads(metadata.get(name) or "{}")
    except (TypeError, json.JSONDecodeError) as error:
        raise DataError(f"'{name}' in {METADATA} is damaged ({error}), but JSON is expected: copy it again") from error
    return told if isinstance(told, dict) else {}


def _download(name: str) -> Path:
    try:
        _minari().download_dataset(name)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(
            f"{name}: neither a file or folder here nor a Minari set that can be downloaded ({reason}): check the name"
        ) from error
    folder = locate(name)
    if folder is None:
        raise FileNotFoundError(f"{name}: minari downloaded it to an unknown place: set MINARI_DATASETS_PATH")
    return folder


def _minari() -> Any:
    try:
        import minari
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the package minari is not installed: pip install 'ornstein[minari]'") from error
    return minari
