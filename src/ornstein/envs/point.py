"""PointMaze of gymnasium-robotics with starts and goals placed exactly, and the errands by which data are collected."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ornstein.envs.make import make, spec_of
from ornstein.envs.maze import Maze, maze
from ornstein.noise import generator as named_generator

IDS = {"umaze": "PointMaze_UMaze-v3", "medium": "PointMaze_Medium-v3", "large": "PointMaze_Large-v3"}

GoalObs = dict[str, Float[np.ndarray, " size"]]
"""Gymnasium's goal dictionary: observation (x, y, vx, vy), achieved_goal (x, y), desired_goal (x, y)."""


class PointMaze:
    """PointMaze (MuJoCo) that ends with success at the goal and places ball and goal exactly.

    `reset(options={"start": (x, y), "goal": (x, y)})` places both; gymnasium-robotics takes cells and adds noise.
    Reward is 1 in the goal disc (radius 0.45) and 0 elsewhere. `continuing`: the task goes on in the goal disc, as in
    D4RL, until the time limit (`max_episode_steps`; by default 300, 600, 800).
    """

    def __init__(self, name: str = "umaze", *, continuing: bool = False, max_episode_steps: int | None = None) -> None:
        self.maze: Maze = maze(name)
        options = {"continuing_task": continuing}
        self.env = make(IDS[name], options=options, max_episode_steps=max_episode_steps, flatten=False)
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.spec, self.unwrapped = self.env.spec, self.env.unwrapped

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[GoalObs, dict[str, Any]]:
        """A new episode: random cells by the seed, then ball (at rest) and goal moved to where `options` want them."""
        placed = dict(options or {})
        start, goal = placed.pop("start", None), placed.pop("goal", None)
        obs, info = self.env.reset(seed=seed, options=placed or None)
        if goal is not None:
            self.aim(goal)
        if start is not None:
            self._check("start", start)
            self.unwrapped.point_env.set_state(np.asarray(start, np.float64), np.zeros(2))
        if start is None and goal is None:
            return obs, info
        obs = self.observe()
        return obs, info | {"success": bool(np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"]) <= 0.45)}

    def aim(self, goal: Any) -> None:
        """Move the goal, at any time."""
        self._check("goal", goal)
        self.unwrapped.goal = np.asarray(goal, np.float64).copy()
        self.unwrapped.update_target_site_pos()

    def observe(self) -> GoalObs:
        """The present observation."""
        inner = self.unwrapped
        xy = inner.data.qpos.copy()
        return {
            "observation": np.concatenate([xy, inner.data.qvel]),
            "achieved_goal": xy,
            "desired_goal": inner.goal.copy(),
        }

    def step(self, action: Any) -> tuple[GoalObs, float, bool, bool, dict[str, Any]]:
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
    """PointMaze for collecting data: from a random start at rest to `goals` random goals in turn (None: without end).

    A goal counts as reached within `radius` of it, which is closer than the task asks, so that the data cover dead ends
    and corners; the next one follows after a stay of `stay` steps. The episode is truncated after the last goal's stay,
    or after `max_episode_steps`. Reward and success are the task's own for the goal of the moment.

    `collect(Errands("umaze"), Controller(maze("umaze"), jitter=0.2).driver(), steps=100_000)` records them.
    """

    def __init__(
        self,
        name: str = "umaze",
        *,
        goals: int | None = None,
        stay: int = 0,
        radius: float = 0.1,
        max_episode_steps: int = 1000,
    ) -> None:
        self.env = PointMaze(name, continuing=True, max_episode_steps=max_episode_steps)
        self.maze, self.goals, self.stay, self.radius = self.env.maze, goals, stay, radius
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.unwrapped = self.env.unwrapped
        options = {"name": name, "goals": goals, "stay": stay, "radius": radius}
        self.spec = spec_of("Errands-v0", options, max_episode_steps)
        self._generator = torch.Generator()

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[GoalObs, dict[str, Any]]:
        """A random start and the first goal; `seed` None goes on with the present stream."""
        if seed is not None:
            self._generator = named_generator("errands", seed)
        chosen = {"start": self.maze.spot(self._generator), "goal": self.maze.spot(self._generator)}
        self._done, self._waited = 0, 0
        return self.env.reset(seed=seed, options=chosen | dict(options or {}))

    def step(self, action: Any) -> tuple[GoalObs, float, bool, bool, dict[str, Any]]:
        """One step of 0.01 s; the observation shows the next goal as soon as the stay at the last one is over."""
        obs, reward, terminal, truncated, info = self.env.step(action)
        x, y = obs["achieved_goal"] - obs["desired_goal"]
        if self._waited > 0 or x * x + y * y < self.radius**2:
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
