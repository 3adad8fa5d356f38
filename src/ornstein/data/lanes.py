"""Environments as lanes for recording: one or several episodes side by side, whatever way they are reset."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ornstein.data.check import DataError
from ornstein.noise import generator


class Parts(NamedTuple):
    """Observations of n lanes, and their goals where the task has some."""

    obs: Float[np.ndarray, " n obs"]
    goal: Float[np.ndarray, " n goal"] | None


class Step(NamedTuple):
    """What one step gave: `after` is the observation that it led to, also where the episode ended."""

    after: Parts
    reward: Float[np.ndarray, " n"]
    terminal: Bool[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]


class Single:
    """One environment; each episode begins from its own seed.

    `raw` is what the environment shows now, `now` the same in parts, `fresh` where that is a first observation, `seeds`
    those by which the present episodes began.
    """

    def __init__(self, env: Any, seed: int) -> None:
        self.env, self.seed, self.n = env, seed, 1
        self.goal_size = _goal_size(env)
        self.ended, self.begun = True, 0
        self.fresh = np.zeros(1, bool)
        self.seeds: list[int | None] = [None]

    def renew(self, cut: list[int]) -> None:
        """Reset the environment if its episode ended or is cut."""
        if self.ended or cut:
            seed = generator("reset", self.seed, self.begun).initial_seed() % 2**31
            self.raw, _ = self.env.reset(seed=seed)
            self.seeds[0], self.begun, self.ended = seed, self.begun + 1, False
            self.now, self.fresh = self._parts(), np.ones(1, bool)

    def step(self, action: Float[np.ndarray, " n act"]) -> Step:
        """One step."""
        space = self.env.action_space
        self.raw, reward, terminal, truncated, _ = self.env.step(action[0].astype(space.dtype))
        self.ended, self.fresh = bool(terminal or truncated), np.zeros(1, bool)
        self.now = self._parts()
        return Step(self.now, np.array([float(reward)]), np.array([bool(terminal)]), np.array([bool(truncated)]))

    def _parts(self) -> Parts:
        if isinstance(self.raw, Mapping):
            return _parts({name: np.asarray(part)[None] for name, part in self.raw.items()}, 0)
        return _parts(np.asarray(self.raw)[None], self.goal_size)


class Several:
    """A Gymnasium vector environment, in any of its three ways to reset, otherwise as Single; it seeds its members."""

    def __init__(self, env: Any, seed: int) -> None:
        self.env, self.seed, self.n = env, seed, int(env.num_envs)
        mode = env.metadata.get("autoreset_mode", "NextStep")
        self.mode = str(getattr(mode, "value", mode))
        self.ended = np.zeros(self.n, bool)
        self.fresh = np.zeros(self.n, bool)
        self.seeds: list[int | None] = [None] * self.n
        self.began = False

    def renew(self, cut: list[int]) -> None:
        """Reset all at first, and later those that ended where the environment leaves it to the caller."""
        if cut and self.mode != "Disabled":
            raise DataError(
                f"max_episode_steps with a vector environment that resets by itself ({self.mode}): "
                "limit its members, gymnasium.make_vec(..., max_episode_steps=...)"
            )
        over = self.ended.copy()
        over[cut] = True
        if not self.began:
            self.raw, _ = self.env.reset(seed=self.seed)
            self.began, self.fresh, self.now = True, np.ones(self.n, bool), _parts(self.raw, 0)
        elif self.mode == "Disabled" and over.any():
            self.raw, _ = self.env.reset(options={"reset_mask": over})
            self.now, self.fresh, self.ended = _parts(self.raw, 0), over, np.zeros(self.n, bool)

    def step(self, action: Float[np.ndarray, " n act"]) -> Step:
        """One step; where it only resets, its outcome belongs to no episode."""
        space = self.env.single_action_space
        self.raw, reward, terminal, truncated, info = self.env.step(action.astype(space.dtype))
        self.now = after = _parts(self.raw, 0)
        over = np.asarray(terminal, bool) | np.asarray(truncated, bool)
        if self.mode == "SameStep":
            self.fresh = over
            after = _with_final(after, info, over)
        elif self.mode == "NextStep":
            self.fresh = self.ended
        else:
            self.fresh = np.zeros(self.n, bool)
        self.ended = over
        return Step(after, np.asarray(reward, np.float64), np.asarray(terminal, bool), np.asarray(truncated, bool))


Lanes = Single | Several
"""n episodes side by side."""


def lanes_of(env: Any, seed: int) -> Lanes:
    """The lanes of an environment; vector environments are known by `num_envs`."""
    lanes = Several(env, seed) if hasattr(env, "num_envs") else Single(env, seed)
    space = env.single_action_space if isinstance(lanes, Several) else env.action_space
    if not hasattr(space, "low") or len(space.shape) != 1:
        raise DataError(f"action space {space} is no vector of real numbers: only such actions can be recorded")
    return lanes


def bounds_of(env: Any) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest actions."""
    space = getattr(env, "single_action_space", env.action_space)
    return np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)


def name_of(env: Any) -> str:
    """The environment's id, with the options in which it differs from the registered one: `Id-v0?name=value`."""
    spec = getattr(env, "spec", None)
    if spec is None:
        return ""
    from gymnasium import registry

    known = registry[spec.id].kwargs if spec.id in registry else {}
    options = []
    for name, value in (spec.kwargs or {}).items():
        if name == "render_mode" or (name in known and known[name] == value):
            continue
        try:
            options.append(f"{name}={json.dumps(value)}")
        except TypeError:
            return str(spec.id)
    return f"{spec.id}?{'&'.join(options)}" if options else str(spec.id)


def _goal_size(env: Any) -> int:
    """How many entries at the end of a flat observation are the goal."""
    inner = getattr(env.unwrapped, "observation_space", None)
    parts = getattr(inner, "spaces", None)
    if hasattr(env.observation_space, "spaces") or not isinstance(parts, Mapping) or "desired_goal" not in parts:
        return 0
    return int(np.prod(parts["desired_goal"].shape))


def _parts(raw: Any, goal_size: int) -> Parts:
    if isinstance(raw, Mapping):
        if "observation" not in raw:
            raise DataError(
                f"the observation has the parts {sorted(raw)}, but 'observation' and 'desired_goal' are expected: "
                "flatten it by gymnasium.wrappers.FlattenObservation"
            )
        goal = raw.get("desired_goal")
        return Parts(_rows(raw["observation"]), None if goal is None else _rows(goal))
    rows = _rows(raw)
    return Parts(rows[:, :-goal_size], rows[:, -goal_size:]) if goal_size else Parts(rows, None)


def _rows(values: Any) -> Float[np.ndarray, " n size"]:
    rows = np.array(values, np.float32)  # a copy: environments reuse their buffers
    if rows.ndim != 2:
        raise DataError(f"observations of shape {rows.shape[1:]} are no vectors: flatten them by a wrapper")
    return rows


def _with_final(after: Parts, info: Mapping[str, Any], over: Bool[np.ndarray, " n"]) -> Parts:
    """The observations before the reset where an episode ended, from the info of the step."""
    if not over.any():
        return after
    final = info["final_obs"]
    obs, goal = after.obs.copy(), None if after.goal is None else after.goal.copy()
    for i in over.nonzero()[0]:
        own = {name: part[i] for name, part in final.items()} if isinstance(final, Mapping) else final[i]
        single = {name: np.asarray(part)[None] for name, part in own.items()} if isinstance(own, Mapping) else own
        part = _parts(single if isinstance(single, Mapping) else np.asarray(single)[None], 0)
        obs[i] = part.obs[0]
        if goal is not None and part.goal is not None:
            goal[i] = part.goal[0]
    return Parts(obs, goal)
