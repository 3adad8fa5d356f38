"""D4RL's layout of flat arrays, one row per step, which HDF5 and NPZ files share.

An episode ends where `terminals | timeouts` is true.

    observations (N, obs)    actions (N, act)    rewards (N,)    terminals (N,)    timeouts (N,)
    next_observations (N, obs)      optional; needed where transitions do not hang together
    infos/goal (N, goal)            optional; infos may hold more, which is read if it is asked for
    episodes/lengths (E,)           optional, as all of `episodes`, which D4RL itself does not have:
    episodes/final_observations (E, obs), episodes/final_known (E,), and anything else with one row per episode

Extras per step stand under `infos`, those per episode under `episodes`, and those per observation under `infos` with
the last of each episode as `episodes/final_<name>`. The attributes `action_low`, `action_high`, `env_id` and `extras`
hold the bounds, the environment, and the names of extras under `infos`; all are optional.
Source: Fu et al. 2020 (2004.07219).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.data.check import (
    DataError,
    as_counts,
    as_extra,
    as_flags,
    as_floats,
    check_finite,
    check_matrix,
    check_rows,
    check_vector,
)
from ornstein.data.episodes import Episodes, interleave

Arrays = Mapping[str, np.ndarray]
Attributes = Mapping[str, Any]

STEPS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
"""The arrays with one row per step; the first four are required."""

RESERVED = ("lengths", "final_observations", "final_known", "returns")
"""Names under `episodes` that are no extras."""


def from_arrays(arrays: Arrays, attributes: Attributes, *, max_episode_steps: int | None = None) -> Episodes:
    """The episodes in arrays of this layout.

    `max_episode_steps` is needed for old sets without `timeouts` (D4RL: locomotion 1000, kitchen 280): episodes are cut
    there. With `next_observations`, an episode is also cut wherever it does not go on with the next row.
    """
    steps = _steps(arrays)
    ended, cut = steps["terminals"], _cuts(arrays, steps, max_episode_steps)
    last = (ended | cut).nonzero().squeeze(1)
    final, known = _final(arrays, steps, last)
    episodes = Episodes.from_steps(
        steps["observations"],
        steps["actions"],
        steps["rewards"],
        terminal=ended,
        truncated=cut,
        final=final,
        final_known=known,
        extras=_extras(arrays, len(ended), torch.diff(last, prepend=torch.tensor([-1]))),
        action_low=tuple(float(value) for value in attributes.get("action_low", ())),
        action_high=tuple(float(value) for value in attributes.get("action_high", ())),
    )
    return replace(episodes, env=_environment(attributes))


def to_arrays(episodes: Episodes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and attributes of this layout, without `next_observations`; `from_arrays` gives the same back."""
    row = torch.arange(episodes.n_steps) + torch.repeat_interleave(episodes.lengths)
    final = episodes.rows + episodes.lengths
    arrays = {
        "observations": episodes.obs[row],
        "actions": episodes.action,
        "rewards": episodes.reward,
        "terminals": episodes.terminal,
        "timeouts": episodes.truncated,
        "episodes/lengths": episodes.lengths,
        "episodes/final_observations": episodes.obs[final],
        "episodes/final_known": episodes.final_known,
    }
    for name, values in episodes.extras.items():
        kind = episodes.belongs_to(name)
        if kind == "row":
            arrays |= {f"infos/{name}": values[row], f"episodes/final_{name}": values[final]}
        else:
            arrays["infos/" + name if kind == "step" else "episodes/" + name] = values
    attributes: dict[str, Any] = {
        "extras": json.dumps([name for name in episodes.extras if episodes.belongs_to(name) != "episode"])
    }
    if episodes.action_low or episodes.action_high:
        attributes |= {name: getattr(episodes.spaces, name) for name in ("action_low", "action_high")}
    if episodes.env:
        attributes["env_id"] = episodes.env
    return {name: values.numpy() for name, values in arrays.items()}, attributes


def next_observations(episodes: Episodes) -> np.ndarray:
    """The observation after each step."""
    row = torch.arange(episodes.n_steps) + torch.repeat_interleave(episodes.lengths)
    return episodes.obs[row + 1].numpy()


def infos_of(attributes: Attributes) -> list[str]:
    """The names of extras under `infos` that a file of ours lists, and `goal`, which D4RL's mazes have."""
    try:
        listed = json.loads(str(attributes.get("extras", "[]")))
    except json.JSONDecodeError as error:
        raise DataError(
            f"attribute 'extras' is damaged ({error}), but a JSON list of names is expected: mend it"
        ) from error
    return list(dict.fromkeys([*listed, "goal"]))


def _array(arrays: Arrays, name: str) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"'{name}' is missing (there are {', '.join(sorted(arrays)) or 'no arrays'}): add it")
    return arrays[name]


def _steps(arrays: Arrays) -> dict[str, Tensor]:
    """The arrays with one row per step, checked against each other."""
    given = {name: _array(arrays, name) for name in STEPS if name in arrays or name in STEPS[:4]}
    for name in ("terminals", "timeouts"):
        if name in given and given[name].dtype.kind == "f":
            check_finite(name, torch.as_tensor(given[name]))
    flags = ("terminals", "timeouts")
    steps = {name: (as_flags if name in flags else as_floats)(name, values) for name, values in given.items()}
    count = len(steps["observations"]) if steps["observations"].ndim else 0
    if count == 0:
        shape = tuple(steps["observations"].shape)
        raise DataError(f"'observations' has shape {shape}, but at least one step is expected: record some")
    for name, values in steps.items():
        if name in ("observations", "actions", "next_observations"):
            check_matrix(name, values, count, "observations")
        else:
            check_vector(name, values, count, "observations")
        check_finite(name, values)
    obs, after = steps["observations"], steps.get("next_observations")
    if after is not None and after.shape != obs.shape:
        raise DataError(
            f"'next_observations' has shape {tuple(after.shape)}, but that of 'observations' is expected, "
            f"{tuple(obs.shape)}: remove or repair it"
        )
    return steps


def _cuts(arrays: Arrays, steps: dict[str, Tensor], max_episode_steps: int | None) -> Tensor:
    """Where episodes end otherwise than by a terminal step alone."""
    ended, lengths = steps["terminals"], None
    if "episodes/lengths" in arrays:
        lengths = as_counts("episodes/lengths", arrays["episodes/lengths"])
        check_matrix("episodes/lengths", lengths[:, None], len(lengths), "episodes")
    if "timeouts" in steps:
        cut = steps["timeouts"].clone()
    elif lengths is not None and int(lengths.sum()) == len(ended):
        cut = torch.zeros_like(ended).index_fill(0, lengths.cumsum(0) - 1, True) & ~ended
    elif lengths is None and max_episode_steps is None and "next_observations" not in steps:
        raise DataError(
            "'timeouts' is missing, so episodes that ran into the time limit cannot be told apart: "
            "give max_episode_steps (D4RL locomotion: 1000)"
        )
    else:
        cut = torch.zeros_like(ended)
    if "next_observations" in steps:
        after, before = steps["next_observations"][:-1], steps["observations"][1:]
        cut[:-1] |= ~torch.isclose(after, before, rtol=1e-5, atol=1e-6).all(1) & ~ended[:-1]
    cut[-1] |= ~ended[-1]
    if max_episode_steps is not None:
        cut |= _limit(ended | cut, max_episode_steps) & ~ended
    if lengths is not None and max_episode_steps is None:
        _agree(lengths, torch.diff((ended | cut).nonzero().squeeze(1), prepend=torch.tensor([-1])))
    return cut


def _agree(told: Tensor, found: Tensor) -> None:
    if not torch.equal(told, found):
        raise DataError(
            f"'episodes/lengths' tells of {len(told)} episodes with {int(told.sum())} steps, but the flags of "
            f"{len(found)} with {int(found.sum())}, and all must agree: remove the group 'episodes' or repair it"
        )


def _limit(ends: Tensor, most: int) -> Tensor:
    """True at every `most`-th step of each episode."""
    if most < 1:
        raise DataError(f"max_episode_steps = {most}, but at least 1 is expected: give the task's time limit")
    step = torch.arange(len(ends))
    after = torch.where(ends, step + 1, 0).cummax(0).values
    start = torch.cat([after.new_zeros(1), after[:-1]])
    return (step - start + 1) % most == 0


def _final(arrays: Arrays, steps: dict[str, Tensor], last: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The observations after the last steps, and which of them are known (None: all)."""
    if "next_observations" in steps:
        return steps["next_observations"][last], None
    if "episodes/final_observations" not in arrays:
        return None, None
    final = as_floats("episodes/final_observations", arrays["episodes/final_observations"])
    size = steps["observations"].shape[1]
    if final.shape != (len(last), size):
        raise DataError(
            f"'episodes/final_observations' has shape {tuple(final.shape)}, but ({len(last)}, {size}) is expected, one "
            "row per episode: remove the group 'episodes' or repair it"
        )
    if "episodes/final_known" not in arrays:
        return final, None
    known = as_flags("episodes/final_known", arrays["episodes/final_known"])
    check_vector("episodes/final_known", known, len(last), "episodes")
    return final, known


def _extras(arrays: Arrays, count: int, lengths: Tensor) -> dict[str, Tensor]:
    extras: dict[str, Tensor] = {}
    for path, values in arrays.items():
        folder, _, name = path.partition("/")
        if folder != "infos":
            continue
        extras[name] = as_extra(path, values)
        check_rows(path, extras[name], count, "observations")
        if f"episodes/final_{name}" in arrays:
            final = as_extra(f"episodes/final_{name}", arrays[f"episodes/final_{name}"])
            check_rows(f"episodes/final_{name}", final, len(lengths), "episodes")
            extras[name] = interleave(extras[name], final, lengths)
    for path, values in arrays.items():
        folder, _, name = path.partition("/")
        told = name in RESERVED or name.removeprefix("final_") in extras
        if folder == "episodes" and not told and values.dtype.kind in "fiub" and values.shape[:1] == lengths.shape:
            extras[name] = as_extra(path, values)
    return extras


def _environment(attributes: Attributes) -> str:
    """The environment's id, as `env_id` or within the JSON of `metadata`; empty if neither has it."""
    try:
        told = json.loads(str(attributes.get("metadata", "{}")))
    except json.JSONDecodeError:
        told = {}
    return str(attributes.get("env_id", told.get("env_id", "") if isinstance(told, dict) else ""))
