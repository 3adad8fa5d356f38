"""Several environments stepped together, each with its own seed, and never reset behind the caller's back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from ornstein.envs.make import flat, make, spaces
from ornstein.types import Spaces

Factory = Callable[[], Any]
"""Makes one Gymnasium environment; the observations of a goal environment are joined to [observation, goal]."""


class Outcome(NamedTuple):
    """What one step gave in each stepped environment; `obs` is the observation after it, also where it ended."""

    obs: Float[np.ndarray, " n obs"]
    reward: Float[np.ndarray, " n"]
    terminal: Bool[np.ndarray, " n"]
    truncated: Bool[np.ndarray, " n"]
    success: Float[np.ndarray, " n"]
    """1 or 0 as the environment reports it, NaN where it does not."""


class Vector:
    """n environments of one kind. An episode that ended must be reset by name before it is stepped again.

    Gymnasium's vector environments reset by themselves, so that the observation or the reward of the next episode leaks
    into the last one where the caller does not look out; here nothing happens that was not asked for.
    """

    def __init__(self, env: str | Factory, n: int) -> None:
        if n < 1:
            raise ValueError(f"n = {n} environments: give at least 1")
        factory = (lambda: make(env)) if isinstance(env, str) else env
        self.envs = [flat(factory()) for _ in range(n)]
        self.name = env if isinstance(env, str) else name_of(self.envs[0])
        self.spaces: Spaces = spaces(self.envs[0])
        self._open = [False] * n

    def __len__(self) -> int:
        return len(self.envs)

    def reset(
        self,
        rows: Sequence[int],
        seeds: Sequence[int | None],
        options: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> Float[np.ndarray, " n obs"]:
        """First observations of new episodes in these rows, each from its own seed (None: go on with its generator)."""
        observations = []
        for i, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
            chosen = None if options is None or options[i] is None else dict(options[i] or {})
            obs, _ = self.envs[row].reset(seed=seed, options=chosen)
            self._open[row] = True
            observations.append(obs)
        return np.asarray(observations, np.float64)

    def step(self, rows: Sequence[int], action: Float[np.ndarray, " n act"]) -> Outcome:
        """Step the environments in these rows, each with its row of `action`."""
        steps = [self._step(row, one) for row, one in zip(rows, action, strict=True)]
        obs, reward, terminal, truncated, success = zip(*steps, strict=True)
        return Outcome(
            np.asarray(obs, np.float64),
            np.asarray(reward, np.float64),
            np.asarray(terminal, bool),
            np.asarray(truncated, bool),
            np.asarray(success, np.float64),
        )

    def _step(self, row: int, action: Float[np.ndarray, " act"]) -> tuple[Any, float, bool, bool, float]:
        if not self._open[row]:
            raise ValueError(f"environment {row} of {self.name} has no open episode: reset it before the next step")
        env = self.envs[row]
        obs, reward, terminal, truncated, info = env.step(action.astype(env.action_space.dtype))
        self._open[row] = not (terminal or truncated)
        return obs, float(reward), bool(terminal), bool(truncated), success_of(info)

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()


def success_of(info: Mapping[str, Any]) -> float:
    """1 or 0 if the step's info says whether the task is done ("is_success" or "success"), else NaN."""
    for key in ("is_success", "success"):
        if key in info:
            return float(bool(info[key]))
    return float("nan")


def name_of(env: Any) -> str:
    """The environment's Gymnasium id, or its class name if it was made without one."""
    return env.spec.id if getattr(env, "spec", None) is not None else type(env.unwrapped).__name__
