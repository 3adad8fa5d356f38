"""Following a path with forces: the tracker of planned waypoints, and the waypoint controller beside planners."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ornstein.envs.maze import XY, Maze
from ornstein.noise import generator
from ornstein.track import KD, KP, track
from ornstein.types import Draw, Noise, NoiseSpec

STEP = 0.01
"""Seconds per PointMaze step."""

JUMP = 0.1
"""Metres, more than the ball can move in a step (0.05 along each axis)."""


def trajectory(
    route: Float[np.ndarray, " waypoints 2"], *, speed: float = 4.0, accel: float = 14.0, rounding: float = 0.8
) -> Float[np.ndarray, " steps 4"]:
    """Rows (x, y, vx, vy), one per environment step, of a smooth ride along straight lines, from rest to rest.

    `speed` m/s on straight parts, at most `accel` m/s^2 along and across the path; corners are cut over `rounding`
    metres.
    """
    path = _rounded(route, rounding)
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    if arc[-1] == 0.0:
        return np.concatenate([route[:1], np.zeros((1, 2))], 1)
    top = np.minimum(speed**2, accel / np.maximum(_curvature(path, arc), 1e-9))
    top[0] = top[-1] = 0.0
    gain = 2 * accel * arc  # v^2 may grow by 2 a s along the path, and backwards from its end
    squared = np.minimum.accumulate(top - gain) + gain
    squared = (np.minimum.accumulate((squared + gain)[::-1])[::-1] - gain).clip(0.0)
    velocity = np.sqrt(squared)
    time = np.concatenate([[0.0], (2 * np.diff(arc) / (velocity[1:] + velocity[:-1])).cumsum()])
    ticks = np.minimum(np.arange(int(np.ceil(time[-1] / STEP)) + 1) * STEP, time[-1])
    i = np.searchsorted(time, ticks, side="right").clip(1, len(time) - 1) - 1
    since, push = ticks - time[i], np.diff(velocity) / np.diff(time)
    way = arc[i] + velocity[i] * since + 0.5 * push[i] * since**2
    xy = np.stack([np.interp(way, arc, path[:, axis]) for axis in (0, 1)], 1)
    moved = np.diff(xy, axis=0, prepend=xy[:1]) / STEP
    return np.concatenate([xy, moved], 1)


class Ride(NamedTuple):
    """The carry of the scripted policies: the reference of each row, its age in steps, and the goal it leads to."""

    plan: Float[Tensor, " n horizon 4"]
    age: Float[Tensor, " n"]
    goal: Float[Tensor, " n 2"]


@dataclass(frozen=True)
class Controller:
    """The waypoint controller: the shortest path of the maze, ridden smoothly; it plans anew whenever the goal changes.

    Source: Fu et al. 2020 (2004.07219), the collector of their mazes. Deviates: it rides around corners at a limited
    acceleration instead of pulling from cell to cell, so that rides touch no wall and can be followed again.
    Observations are (x, y, vx, vy, goal x, goal y). `jitter`: standard deviation of the noise on its forces.
    `straight`: the control that knows no walls, the same ride on the straight line. `horizon`: the longest ride in
    steps.
    """

    maze: Maze
    speed: float = 4.0
    accel: float = 14.0
    clearance: float = 0.3
    jitter: float = 0.0
    straight: bool = False
    horizon: int = 1024

    @property
    def noise(self) -> NoiseSpec:
        """Normal noise on the two forces."""
        return {"force": Draw("normal", (2,))} if self.jitter else {}

    def start(self, n_envs: int) -> Ride:
        """Rides to nowhere, so that the first act plans."""
        never = torch.full((n_envs, 2), float("nan"))
        return Ride(torch.zeros(n_envs, self.horizon, 4), torch.zeros(n_envs), never)

    def act(self, obs: Float[Tensor, " n obs"], carry: Ride, noise: Noise) -> tuple[Float[Tensor, " n 2"], Ride]:
        """Forces along the present ride, after planning for the rows whose goal is new."""
        carry = self._renewed(obs, carry)
        force = track(obs, carry.plan.to(obs.dtype), carry.age.to(obs.dtype))
        if self.jitter:
            force = (force + self.jitter * noise["force"]).clamp(-1.0, 1.0)
        return force, carry._replace(age=carry.age + 1)

    def driver(self, seed: int = 0) -> Callable[[Any], Float[np.ndarray, " 2"]]:
        """The same policy as a function of one environment's observation (vector or goal dictionary), without tensors.

        It remembers its ride, so each environment needs its own; a jump of the ball tells it of a new episode.
        Recording by it is several times as fast.
        """
        source = generator("drive", seed)
        goal, ride, age, last = np.full(2, np.nan), np.zeros((1, 4)), 0, np.zeros(2)

        def drive(obs: Any) -> Float[np.ndarray, " 2"]:
            nonlocal goal, ride, age, last
            state, aim = (obs["observation"], obs["desired_goal"]) if isinstance(obs, Mapping) else (obs, obs[4:6])
            jumped = max(abs(state[0] - last[0]), abs(state[1] - last[1])) > JUMP
            if jumped or aim[0] != goal[0] or aim[1] != goal[1]:
                goal, age = np.array(aim, np.float64), 0
                ride = np.concatenate([self.ride(state[:2], goal), [[*goal, 0.0, 0.0]]])
            lag = ride[min(age + 1, len(ride) - 1)] - state[:4]
            age, last = age + 1, np.array(state[:2])
            force = KP * lag[:2] + KD * lag[2:]
            noise = self.jitter * torch.randn(2, generator=source).double().numpy() if self.jitter else 0.0
            return np.clip(np.clip(force, -1.0, 1.0) + noise, -1.0, 1.0)

        return drive

    def ride(self, xy: Sequence[float] | XY, goal: Sequence[float] | XY) -> Float[np.ndarray, " steps 4"]:
        """The reference from one point to another."""
        ends = np.asarray([xy, goal], np.float64)
        route = ends if self.straight else self.maze.route(ends[0], ends[1], self.clearance)
        return trajectory(route, speed=self.speed, accel=self.accel)

    def _renewed(self, obs: Float[Tensor, " n obs"], carry: Ride) -> Ride:
        goal = obs[:, 4:6]
        new = (goal != carry.goal).any(1).nonzero()[:, 0].tolist()
        if not new:
            return carry
        plan, age = carry.plan.clone(), carry.age.clone()
        for i in new:
            rows = torch.from_numpy(self.ride(obs[i, :2].tolist(), goal[i].tolist()))[: self.horizon]
            plan[i, : len(rows)] = rows.to(plan.dtype)
            plan[i, len(rows) :] = torch.cat([rows[-1, :2], torch.zeros(2)]).to(plan.dtype)
            age[i] = 0
        return Ride(plan, age, goal)


def _rounded(route: Float[np.ndarray, " waypoints 2"], width: float, spacing: float = 0.01) -> Any:
    """The route sampled every `spacing` metres and averaged over `width`; both ends stay where they are."""
    steps = np.linalg.norm(np.diff(route, axis=0), axis=1)
    arc = np.concatenate([[0.0], steps.cumsum()])
    count = max(int(np.ceil(arc[-1] / spacing)), 2) + 1  # a point between the ends, where a ride has some speed
    at_arc = np.linspace(0.0, arc[-1], count)
    path = np.stack([np.interp(at_arc, arc, route[:, i]) for i in (0, 1)], 1)
    half = min(int(width / spacing / 2), (count - 1) // 2)
    if half == 0:
        return path
    before, after = 2 * path[0] - path[half:0:-1], 2 * path[-1] - path[-2 : -half - 2 : -1]
    total = np.concatenate([np.zeros((1, 2)), np.concatenate([before, path, after]).cumsum(0)])
    return (total[2 * half + 1 :] - total[: -2 * half - 1]) / (2 * half + 1)


def _curvature(path: Float[np.ndarray, " points 2"], arc: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """1 / radius of the path at each point."""
    if len(path) < 3:
        return np.zeros(len(path))
    way = np.diff(path, axis=0)
    angle = np.unwrap(np.arctan2(way[:, 1], way[:, 0]))
    turn = np.abs(np.diff(angle)) / (0.5 * (arc[2:] - arc[:-2]))
    return np.concatenate([turn[:1], turn, turn[-1:]])
