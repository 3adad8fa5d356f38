"""PointMaze of gymnasium-robotics with starts and goals placed exactly, and the errands by which data are collected."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ornstein.envs.make import make
from ornstein.envs.maze import LAYOUTS, Maze, maze
from ornstein.noise import generator as named_generator

IDS = {"umaze": "PointMaze_UMaze-v3", "medium": "PointMaze_Medium-v3", "large": "PointMaze_Large-v3"}


class PointMaze:
    """PointMaze (MuJoCo) with flat observations (x, y, vx, vy, goal x, goal y), ending with success at the goal.

    `reset(options={"start": (x, y), "goal": (x, y)})` places ball and goal exactly; gymnasium-robotics takes cells and
    adds noise of +-0.25 to both. Reward is 1 in the goal disc (radius 0.45) and 0 elsewhere. `continuing`: the task
    goes on in the goal disc, as in D4RL, until the time limit (`max_episode_steps`; by default 300, 600, 800).
    """

    def __init__(self, name: str = "umaze", *, continuing: bool = False, max_episode_steps: int | None = None) -> None:
        if name not in LAYOUTS:
            raise ValueError(f"unknown maze {name!r}: choose one of {', '.join(LAYOUTS)}")
        self.maze: Maze = maze(name)
        self.env = make(IDS[name], options={"continuing_task": continuing}, max_episode_steps=max_episode_steps)
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.spec, self.unwrapped = self.env.spec, self.env.unwrapped

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A new episode: random cells by the seed, then ball (at rest) and goal moved to where `options` want them."""
        placed = dict(options or {})
        start, goal = placed.pop("start", None), placed.pop("goal", None)
        obs, info = self.env.reset(seed=seed, options=placed or None)
        if start is None and goal is None:
            return obs, info
        if goal is not None:
            self.aim(goal)
        inner = self.unwrapped
        if start is not None:
            self._check("start", start)
            inner.point_env.set_state(np.asarray(start, np.float64), np.zeros(2))
        return self.observe(), info | {"success": bool(np.linalg.norm(inner.data.qpos - inner.goal) <= 0.45)}

    def aim(self, goal: Any) -> None:
        """Move the goal, at any time."""
        self._check("goal", goal)
        self.unwrapped.goal = np.asarray(goal, np.float64).copy()
        self.unwrapped.update_target_site_pos()

    def observe(self) -> Float[np.ndarray, " obs"]:
        """The present observation."""
        inner = self.unwrapped
        return np.concatenate([inner.data.qpos, inner.data.qvel, inner.goal])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of 0.01 s."""
        obs, reward, terminal, truncated, info = self.env.step(action)
        return obs, float(reward), terminal, truncated, info

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()

    def _check(self, what: str, xy: Any) -> None:
        if np.shape(xy) != (2,) or not self.maze.inside(xy):
            raise ValueError(f"{what} = {xy} is not a free point (x, y) of the maze")


class Errands:
    """PointMaze for collecting data: from a random start at rest to `goals` random goals in turn.

    A goal counts as reached within `radius` of it, which is closer than the task asks, so that the data cover dead ends
    and corners. The next one follows after a stay of `stay` steps. The episode is truncated after `steps` steps, or
    after the last goal's stay. Reward and success are the task's own for the goal of the moment.
    """

    def __init__(
        self, name: str = "umaze", *, goals: int | None = None, stay: int = 0, steps: int = 1000, radius: float = 0.1
    ) -> None:
        self.env = PointMaze(name, continuing=True, max_episode_steps=steps)
        self.maze, self.goals, self.stay, self.radius = self.env.maze, goals, stay, radius
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.spec, self.unwrapped = self.env.spec, self.env.unwrapped
        self._generator = torch.Generator()

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A random start and the first goal; `seed` None goes on with the present stream."""
        if seed is not None:
            self._generator = named_generator("errands", seed)
        chosen = {"start": self.maze.spot(self._generator), "goal": self.maze.spot(self._generator)}
        self._done, self._waited = 0, 0
        return self.env.reset(seed=seed, options=chosen | dict(options or {}))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of 0.01 s; the observation shows the next goal as soon as the stay at the last one is over."""
        obs, reward, terminal, truncated, info = self.env.step(action)
        reached = self._waited > 0 or float(np.hypot(*(obs[:2] - obs[4:6]))) < self.radius
        if reached:
            self._waited += 1
        if self._waited > self.stay:
            self._done, self._waited = self._done + 1, 0
            if self._done == self.goals:
                truncated = True
            else:
                self.env.aim(self.maze.spot(self._generator))
                obs = self.env.observe()
        return obs, reward, terminal, truncated, info

    def close(self) -> None:
        """Close the simulator."""
        self.env.close()
