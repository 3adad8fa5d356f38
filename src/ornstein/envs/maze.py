"""Mazes of square cells: walls, free cells, sight lines, shortest paths around corners, and start-goal pairs.

Coordinates are those of gymnasium-robotics' PointMaze: cells of side 1, the origin in the middle of the map, x to the
right, y up; a cell is (row, column), rows counted from the top.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

LAYOUTS: dict[str, tuple[str, ...]] = {
    "umaze": (
        "#####",
        "#...#",
        "###.#",
        "#...#",
        "#####",
    ),
    "medium": (
        "########",
        "#..##..#",
        "#..#...#",
        "##...###",
        "#..#...#",
        "#.#..#.#",
        "#...#..#",
        "########",
    ),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#...#",
        "############",
    ),
}
"""The maps of PointMaze_UMaze, _Medium and _Large: # is wall, . is free."""

BALL = 0.1
"""Radius of PointMaze's ball: how near its centre comes to a wall."""

GOAL_RADIUS = 0.45
"""PointMaze's success: the distance of the ball's centre to the goal at which the task is done."""

SPREAD = 0.25
"""PointMaze's starts and goals lie within this distance of a cell's centre along each axis."""

XY = Float[np.ndarray, " 2"]
Points = Sequence[Any] | np.ndarray
"""One point or cell, or many, as an array or as nested sequences."""


class Pair(NamedTuple):
    """A start and a goal, with the straight and the shortest way between them."""

    start: tuple[float, float]
    goal: tuple[float, float]
    straight: float
    geodesic: float

    @property
    def options(self) -> dict[str, tuple[float, float]]:
        """What `reset(options=...)` of `ornstein.envs.point.PointMaze` takes to place exactly this pair."""
        return {"start": self.start, "goal": self.goal}


@dataclass(frozen=True)
class Maze:
    """A map of square walls. Paths keep `clearance` from every wall along both axes."""

    walls: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse maps that are not rectangles of # and . or that let the ball out."""
        widths = {len(row) for row in self.walls}
        if len(widths) != 1 or set("".join(self.walls)) - set("#."):
            raise ValueError(f"maze rows {self.walls}: expected rows of equal length made of # (wall) and . (free)")
        rim = self.walls[0] + self.walls[-1] + "".join(row[0] + row[-1] for row in self.walls)
        if "." in rim:
            raise ValueError(f"maze rows {self.walls}: the rim has an opening; close it with #")

    @cached_property
    def free(self) -> Int[np.ndarray, " cells 2"]:
        """The free cells as (row, column), row by row."""
        return np.argwhere(self._grid == ".")

    def centre(self, cell: Points) -> Float[np.ndarray, " *n 2"]:
        """The coordinates of the middle of cells (row, column)."""
        row, column = np.moveaxis(np.asarray(cell, np.float64), -1, 0)
        rows, columns = self._grid.shape
        return np.stack([column + 0.5 - columns / 2, rows / 2 - row - 0.5], -1)

    def cell(self, xy: Points) -> Int[np.ndarray, " *n 2"]:
        """The cells (row, column) in which points lie."""
        x, y = np.moveaxis(np.asarray(xy, np.float64), -1, 0)
        rows, columns = self._grid.shape
        return np.stack([np.floor(rows / 2 - y), np.floor(x + columns / 2)], -1).astype(np.int64)

    def inside(self, xy: Points, clearance: float = 0.0) -> Bool[np.ndarray, " *n"]:
        """Whether points lie on free ground, at least `clearance` away from every wall along an axis."""
        points = np.asarray(xy, np.float64)[..., None, :]
        low, high = self.boxes[:, :2] - clearance, self.boxes[:, 2:] + clearance
        rows, columns = self._grid.shape
        on_map = (np.abs(points[..., 0, :]) <= np.array([columns, rows]) / 2).all(-1)
        return np.asarray(on_map & ~((points > low) & (points < high)).all(-1).any(-1))

    def visible(
        self, a: Float[np.ndarray, " n 2"], b: Float[np.ndarray, " m 2"], clearance: float = BALL
    ) -> Bool[np.ndarray, " n m"]:
        """Whether the straight line between each a and each b keeps off every wall widened by `clearance`."""
        low, high = self.boxes[:, :2] - clearance + EDGE, self.boxes[:, 2:] + clearance - EDGE
        origin, way = a[:, None, None, :], (b[None] - a[:, None])[:, :, None, :]
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = (low - origin) / way, (high - origin) / way
        enter, leave = np.minimum(first, second), np.maximum(first, second)
        level = way == 0
        between = (origin > low) & (origin < high)
        enter = np.where(level, np.where(between, -np.inf, np.inf), enter).max(-1)
        leave = np.where(level, np.where(between, np.inf, -np.inf), leave).min(-1)
        crossed = (enter < leave) & (leave > 0.0) & (enter < 1.0)
        return ~crossed.any(-1)

    def route(
        self, start: Sequence[float] | XY, goal: Sequence[float] | XY, clearance: float = BALL
    ) -> Float[np.ndarray, " waypoints 2"]:
        """The shortest path from start to goal, both included: straight lines from corner to corner.

        Points nearer to a wall than `clearance` are first moved away from it for the search of the way.
        """
        graph = _graph(self, clearance)
        ends = np.asarray([start, goal], np.float64)
        if not self.inside(ends).all():
            raise ValueError(f"start {tuple(start)} or goal {tuple(goal)} lies in a wall or outside of the maze")
        clear = self._cleared(ends, clearance)
        if self.visible(clear[:1], clear[1:], clearance)[0, 0]:
            return ends
        first = np.where(
            self.visible(clear[:1], graph.nodes, clearance)[0], _distance(clear[:1], graph.nodes)[0], np.inf
        )
        last = np.where(
            self.visible(clear[1:], graph.nodes, clearance)[0], _distance(clear[1:], graph.nodes)[0], np.inf
        )
        total = first[:, None] + graph.length + last[None]
        if not np.isfinite(total).any():
            raise ValueError(f"no path of clearance {clearance} leads from {tuple(start)} to {tuple(goal)}")
        i, j = np.unravel_index(int(np.argmin(total)), total.shape)
        inner = [int(i)]
        while inner[-1] != j:
            inner.append(int(graph.following[inner[-1], j]))
        return np.concatenate([ends[:1], graph.nodes[inner], ends[1:]])

    def geodesic(self, start: Sequence[float] | XY, goal: Sequence[float] | XY, clearance: float = BALL) -> float:
        """The length of the shortest path that the ball's centre can take."""
        return float(np.linalg.norm(np.diff(self.route(start, goal, clearance), axis=0), axis=1).sum())

    def spot(self, generator: torch.Generator, spread: float = SPREAD) -> XY:
        """A random point: a free cell, and within `spread` of its centre along each axis (PointMaze's own law)."""
        cell = self.free[int(torch.randint(len(self.free), (), generator=generator))]
        return self.centre(cell) + spread * (2 * torch.rand(2, generator=generator).double().numpy() - 1)

    def pairs(
        self, n: int, generator: torch.Generator, *, ratio: float = 1.0, apart: float = 2 * GOAL_RADIUS
    ) -> list[Pair]:
        """Random start-goal pairs at least `apart` from each other, geodesic >= `ratio` times the straight line."""
        found: list[Pair] = []
        for _ in range(1000 * n):
            start, goal = self.spot(generator), self.spot(generator)
            straight = float(np.linalg.norm(goal - start))
            if straight < apart:
                continue
            geodesic = self.geodesic(start, goal)
            if geodesic >= ratio * straight:
                found.append(Pair(_plain(start), _plain(goal), straight, geodesic))
            if len(found) == n:
                return found
        raise ValueError(
            f"found {len(found)} of {n} pairs with geodesic >= {ratio} times the straight line: lower `ratio`"
        )

    @cached_property
    def boxes(self) -> Float[np.ndarray, " walls 4"]:
        """The wall cells as (x low, y low, x high, y high)."""
        middle = self.centre(np.argwhere(self._grid == "#"))
        return np.concatenate([middle - 0.5, middle + 0.5], 1)

    @cached_property
    def _grid(self) -> np.ndarray:
        return np.array([list(row) for row in self.walls])

    def _cleared(self, xy: Float[np.ndarray, " n 2"], clearance: float) -> Float[np.ndarray, " n 2"]:
        """The points, each clamped inside its own cell away from the walls that touch that cell's sides."""
        cell = self.cell(xy)
        offset = xy - self.centre(cell)
        room = 0.5 - clearance
        for i, (row, column) in enumerate(cell.tolist()):
            right, left = self._grid[row, column + 1] == "#", self._grid[row, column - 1] == "#"
            above, below = self._grid[row - 1, column] == "#", self._grid[row + 1, column] == "#"
            low = np.array([-room if left else -0.5, -room if below else -0.5])
            high = np.array([room if right else 0.5, room if above else 0.5])
            offset[i] = np.clip(offset[i], low, high)
            offset[i] = self._off_corners(offset[i], row, column, room)
        return self.centre(cell) + offset

    def _off_corners(self, offset: XY, row: int, column: int, room: float) -> XY:
        """A point moved out of the widened corner of a wall that touches its cell only diagonally."""
        for across, up in product((-1, 1), (-1, 1)):
            deep = np.array([across, up]) * offset - room
            if self._grid[row - up, column + across] == "#" and (deep > 0).all():
                axis = int(np.argmin(deep))
                offset = offset.copy()
                offset[axis] = (across, up)[axis] * room
        return offset


EDGE = 1e-9
"""A path may touch the widened walls; it crosses them only if it goes deeper than this."""


def maze(name: str) -> Maze:
    """The named maze: umaze, medium or large."""
    if name not in LAYOUTS:
        raise ValueError(f"unknown maze {name!r}: choose one of {', '.join(LAYOUTS)}")
    return Maze(LAYOUTS[name])


class _Graph(NamedTuple):
    nodes: Float[np.ndarray, " k 2"]
    length: Float[np.ndarray, " k k"]
    following: Int[np.ndarray, " k k"]


@lru_cache(maxsize=32)
def _graph(maze: Maze, clearance: float) -> _Graph:
    """Shortest ways between all convex corners of the walls, each moved `clearance` off its wall along both axes.

    A shortest path among polygons bends only at their convex corners, so this graph is exact (Lozano-Perez, Wesley
    1979).
    """
    if not 0.0 < clearance < 0.5:
        raise ValueError(f"clearance = {clearance} must lie in (0, 0.5), half of a corridor")
    nodes = _corners(maze, clearance)
    length = np.where(maze.visible(nodes, nodes, clearance), _distance(nodes, nodes), np.inf)
    following = np.tile(np.arange(len(nodes)), (len(nodes), 1))
    for k in range(len(nodes)):  # Floyd and Warshall's recursion over the intermediate corner k
        through = length[:, k : k + 1] + length[k : k + 1]
        shorter = through < length - EDGE
        length = np.where(shorter, through, length)
        following = np.where(shorter, following[:, k : k + 1], following)
    return _Graph(nodes, length, following)


def _corners(maze: Maze, clearance: float) -> Float[np.ndarray, " k 2"]:
    """The lattice points where exactly one of the four cells is wall, moved away from it."""
    wall = np.array([[cell == "#" for cell in row] for row in maze.walls])
    rows, columns = wall.shape
    nodes = []
    for i, j in product(range(1, rows), range(1, columns)):
        around = wall[i - 1 : i + 1, j - 1 : j + 1]
        if around.sum() != 1:
            continue
        below, right = np.argwhere(around)[0]
        away = np.array([1.0 - 2.0 * right, -1.0 + 2.0 * below])
        nodes.append(np.array([j - columns / 2, rows / 2 - i]) + clearance * away)
    return np.array(nodes).reshape(-1, 2)


def _distance(a: Float[np.ndarray, " n 2"], b: Float[np.ndarray, " m 2"]) -> Float[np.ndarray, " n m"]:
    return np.linalg.norm(b[None] - a[:, None], axis=-1)


def _plain(xy: XY) -> tuple[float, float]:
    return float(xy[0]), float(xy[1])
