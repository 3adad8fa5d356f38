"""The bidirectional car: one can leave by either side, if one goes on in one direction at full throttle.

Small throttles and changes of mind never leave, and the mean of the two ways out is to stand still: what a policy of
one mode does on data of both directions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.envs.make import spec_of
from ornstein.noise import generator as named_generator

EDGE, STEPS, MOST_ENERGY = 10.0, 100, 5.0
"""The car has left where |x| > EDGE; the time limit; the largest energy."""

SCALE = (5.0, 2.0)
"""What observations (x, energy) are divided by where they are scaled."""

COLLECTORS = {"constant": 5.0, "random": 5.0, "sticky": 2.5, "walk": 9.0}
"""Who recorded, and the largest |x| at which each begins."""


def moved(x: Tensor, energy: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Position and energy after one step: x + a e / 10, and e + |a| / 20 in [0, 5].

    Source: Chen et al. 2023 (2209.14548), SfBC, appendix and official code.
    """
    return x + action * energy / 10, (energy + 0.05 * action.abs()).clamp(0.0, MOST_ENERGY)


class BidirectionalCar:
    """The task as an environment: reward 1 at the step that leaves, which ends the episode; 100 steps; one throttle."""

    def __init__(self, *, scaled: bool = False, max_episode_steps: int = STEPS) -> None:
        from gymnasium.spaces import Box

        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Box(-1.0, 1.0, (1,), np.float32)
        self.scale = np.array(SCALE if scaled else (1.0, 1.0))
        self.limit = max_episode_steps
        self.spec = spec_of("BidirectionalCar-v0", {"scaled": scaled}, max_episode_steps)
        self._generator = torch.Generator()

    @property
    def unwrapped(self) -> "BidirectionalCar":
        """Itself."""
        return self

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Anywhere in [-1, 1], or at `options={"x": x}`, without energy."""
        if seed is not None:
            self._generator = named_generator("car", seed)
        drawn = 2 * float(torch.rand((), generator=self._generator)) - 1
        self.state, self._steps = np.array([float((options or {}).get("x", drawn)), 0.0]), 0
        return self.state / self.scale, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step at a throttle in [-1, 1]."""
        throttle = torch.as_tensor(np.asarray(action, np.float64)).clamp(-1.0, 1.0)[0]
        x, energy = moved(*torch.as_tensor(self.state), throttle)
        self.state, self._steps = np.array([float(x), float(energy)]), self._steps + 1
        left = bool(abs(float(x)) > EDGE)
        return self.state / self.scale, float(left), left, self._steps >= self.limit and not left, {"success": left}

    def close(self) -> None:
        """Nothing to close."""


class Recording(NamedTuple):
    """Episodes of unlike lengths as lists, one row more of observations than of throttles, as `Episodes.from_lists`
    takes them.
    """

    obs: list[Float[Tensor, " rows 2"]]
    action: list[Float[Tensor, " steps 1"]]
    reward: list[Float[Tensor, " steps"]]
    terminal: list[bool]


def recorded(episodes: int, generator: torch.Generator, *, scaled: bool = False) -> Recording:
    """As many episodes by each of the four collectors: constant full throttle either way, uniform noise, a direction
    kept with probability 0.9 at throttles of 0.7 to 1, and a random walk of the throttle with steps of up to 0.5.

    Source: Chen et al. 2023 (2209.14548), SfBC, official code.
    """
    x = torch.cat([reach * _uniform(episodes, generator) for reach in COLLECTORS.values()])
    energy, found = torch.zeros(len(x)), ([x], [torch.zeros(len(x))], [])
    way, walk = _uniform(2 * episodes, generator).sign(), _uniform(episodes, generator)
    for _ in range(STEPS):
        noise = _uniform(4 * episodes, generator).view(4, -1)
        keep = torch.rand(episodes, generator=generator) < 0.9
        way[episodes:] = torch.where(keep, way[episodes:], -way[episodes:])
        walk = (walk + 0.5 * noise[3]).clamp(-1.0, 1.0)
        constant = way[:episodes] * (0.95 + 0.05 * noise[0])
        action = torch.cat([constant, noise[1], way[episodes:] * (0.85 + 0.15 * noise[2]), walk])
        x, energy = moved(x, energy, action)
        for column, values in zip(found, (x, energy, action), strict=True):
            column.append(values)
    return _cut(*(torch.stack(column, 1) for column in found), scale=SCALE if scaled else (1.0, 1.0))


def _cut(x: Tensor, energy: Tensor, action: Tensor, *, scale: tuple[float, float]) -> Recording:
    """Each episode up to the first step that left."""
    left = x[:, 1:].abs() > EDGE
    ended = left.any(1)
    lengths = torch.where(ended, left.long().argmax(1) + 1, STEPS).tolist()
    obs = torch.stack([x, energy], 2) / torch.tensor(scale)
    return Recording(
        [rows[: n + 1] for rows, n in zip(obs, lengths, strict=True)],
        [row[:n, None] for row, n in zip(action, lengths, strict=True)],
        [row[:n].float() for row, n in zip(left, lengths, strict=True)],
        ended.tolist(),
    )


def _uniform(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    return 2 * torch.rand(n, generator=generator) - 1
