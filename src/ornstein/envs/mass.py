"""A point mass in a maze without a simulator: PointMaze's law of motion in a few lines, and segments to stitch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ornstein.envs.make import spec_of
from ornstein.envs.maze import BALL, EDGE, GOAL_RADIUS, XY, Maze, maze
from ornstein.envs.tracker import STEP, Controller
from ornstein.noise import generator as named_generator

MASS = 1000.0 * 4.0 / 3.0 * np.pi * BALL**3
"""Kilograms: a ball of density 1000 kg/m^3."""

GEAR, DAMPING = 100.0, 1.0
"""Newtons per unit of force, and newtons per m/s of slowing down; a force of 1 accelerates by 23.8 m/s^2."""

FORCE = GEAR / (MASS + STEP * DAMPING)
"""Acceleration (m/s^2) by a force of 1; the damping is integrated implicitly, hence the addition to the mass."""

TOP_SPEED = 5.0
"""PointMaze clips each component of the velocity to this, before every step."""


class PointMass:
    """A point mass in a maze: velocity += force, position += velocity, and walls stop what runs into them.

    Free motion is exactly PointMaze's; walls stop the ball without bouncing. Observations, goal disc, reset options and
    reward are the same, so the tracker and the controller work unchanged.
    """

    def __init__(self, name: str = "umaze", *, max_episode_steps: int = 300) -> None:
        from gymnasium.spaces import Box, Dict

        self.maze: Maze = maze(name)
        self._shift = len(self.maze.walls[0]) / 2, len(self.maze.walls) / 2
        self.limit = max_episode_steps
        self.spec = spec_of("PointMass-v0", {"name": name}, max_episode_steps)
        point, state = Box(-np.inf, np.inf, (2,), np.float64), Box(-np.inf, np.inf, (4,), np.float64)
        self.observation_space = Dict({"observation": state, "achieved_goal": point, "desired_goal": point})
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._generator = torch.Generator()

    @property
    def unwrapped(self) -> "PointMass":
        """Itself."""
        return self

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """At rest at a random start with a random goal, or at those of `options={"start": (x, y), "goal": (x, y)}`."""
        if seed is not None:
            self._generator = named_generator("mass", seed)
        pair = self.maze.pairs(1, self._generator)[0].options | dict(options or {})
        self.xy, self.goal = np.asarray(pair["start"], np.float64), np.asarray(pair["goal"], np.float64)
        if not self.maze.inside(np.stack([self.xy, self.goal])).all():
            raise ValueError(f"start {pair['start']} or goal {pair['goal']} is not a free point of the maze")
        self.velocity, self._steps = np.zeros(2), 0
        return self._observe(), {"success": self._near()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step of 0.01 s."""
        force = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        velocity = np.clip(self.velocity, -TOP_SPEED, TOP_SPEED)
        self.velocity = velocity + STEP * FORCE * (force - DAMPING / GEAR * velocity)
        for axis in (0, 1):
            moved = self.xy.copy()
            moved[axis] += STEP * self.velocity[axis]
            if self._fits(moved):
                self.xy = moved
            else:
                self.velocity[axis] = 0.0
        self._steps += 1
        near = self._near()
        return self._observe(), float(near), near, self._steps >= self.limit and not near, {"success": near}

    def close(self) -> None:
        """Nothing to close."""

    def _fits(self, xy: XY) -> bool:
        """Whether the square of the ball's size around a point touches no wall: a quick `maze.inside(xy, BALL)`."""
        x, y = xy[0] + self._shift[0], self._shift[1] - xy[1]
        walls, reach = self.maze.walls, BALL - EDGE
        columns, rows = (int(x - reach), int(x + reach)), (int(y - reach), int(y + reach))
        return all(walls[row][column] == "." for row in rows for column in columns)

    def _near(self) -> bool:
        return bool(np.linalg.norm(self.xy - self.goal) <= GOAL_RADIUS)

    def _observe(self) -> dict[str, Float[np.ndarray, " size"]]:
        state = np.concatenate([self.xy, self.velocity])
        return {"observation": state, "achieved_goal": self.xy.copy(), "desired_goal": self.goal.copy()}


class Recordings(NamedTuple):
    """n recordings of equal length, one row more of observations (x, y, vx, vy) than of forces."""

    obs: Float[Tensor, " n rows 4"]
    action: Float[Tensor, " n steps 2"]


def segments(
    ground: Maze, n: int, generator: torch.Generator, *, steps: int = 32, stride: int = 4, longest: float = 2.25
) -> Recordings:
    """Short pieces of smooth rides between random points, each at most `longest` metres: to be stitched, not copied.

    A row is `stride` steps of 0.01 s; forces are means over a row. 2.25 m is half of the longest way through the U
    maze, so no piece leads from one end to the other. Pieces begin anywhere in a ride, a third of them at its start and
    a third so as to end at its end: what is stitched begins and ends at rest, and moves in between.
    """
    rider = Controller(ground, speed=longest / (steps * stride * STEP))
    span = steps * stride
    pieces: list[Float[np.ndarray, " rows 4"]] = []
    while len(pieces) < n:
        pair = ground.pairs(1, generator, apart=0.5)[0]
        ride = rider.ride(pair.start, pair.goal)
        if len(ride) < span + 1:
            rest = np.tile(np.array([*ride[-1, :2], 0.0, 0.0]), (span + 1 - len(ride), 1))
            ride = np.concatenate([ride, rest])
        last = len(ride) - span - 1  # where the piece begins that ends with the ride
        first = min(max(int(torch.randint(-last, 2 * last + 1, (), generator=generator)), 0), last)
        pieces.append(ride[first : first + span + 1 : stride])
    obs = torch.from_numpy(np.stack(pieces))
    force = obs[:, :, 2:].diff(dim=1) / (stride * STEP * FORCE)
    return Recordings(obs.float(), force.float())


def crosses_wall(ground: Maze, path: Float[np.ndarray, " points 2"]) -> bool:
    """Whether the line through these points enters a wall anywhere."""
    ends = np.asarray(path, np.float64)
    clear: Bool[np.ndarray, " points points"] = ground.visible(ends[:-1], ends[1:], clearance=2e-9)
    return not bool(np.diagonal(clear).all() and ground.inside(ends).all())
