import itertools

import numpy as np
import pytest
import torch

from ornstein.envs.maze import BALL, GOAL_RADIUS, LAYOUTS, SPREAD, Maze, maze

ROOM = Maze(("#####", "#...#", "#...#", "#...#", "#####"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def length(path):
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())


@pytest.mark.parametrize(("name", "cells"), [("umaze", 7), ("medium", 26), ("large", 46)])
def test_layouts_are_those_of_gymnasium_robotics(name, cells):
    from gymnasium_robotics.envs.maze import maps

    published = {"umaze": maps.U_MAZE, "medium": maps.MEDIUM_MAZE, "large": maps.LARGE_MAZE}[name]
    assert LAYOUTS[name] == tuple("".join("#" if cell == 1 else "." for cell in row) for row in published)
    assert len(maze(name).free) == cells


def test_cells_and_coordinates_by_hand():
    m = maze("umaze")
    np.testing.assert_array_equal(m.centre([1, 1]), [-1.0, 1.0])
    np.testing.assert_array_equal(m.centre([[2, 3], [3, 1]]), [[1.0, 0.0], [-1.0, -1.0]])
    np.testing.assert_array_equal(m.cell([0.6, -1.4]), [3, 3])
    np.testing.assert_array_equal(maze("large").centre([1, 1]), [-4.5, 3.0])
    for name in LAYOUTS:
        np.testing.assert_array_equal(maze(name).cell(maze(name).centre(maze(name).free)), maze(name).free)


def test_coordinates_are_those_of_the_simulator():
    from gymnasium_robotics.envs.maze.maps import LARGE_MAZE
    from gymnasium_robotics.envs.maze.maze_v4 import Maze as Published

    published, m = Published(LARGE_MAZE, 1.0, 0.4), maze("large")
    for cell in m.free:
        np.testing.assert_allclose(published.cell_rowcol_to_xy(cell), m.centre(cell))


def test_inside_is_free_ground_off_the_walls():
    m = maze("umaze")
    points = [(-1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.49, 0.0), (0.51, 0.0), (3.0, 0.0)]
    assert m.inside(points).tolist() == [True, False, True, False, True, False]
    assert m.inside((0.59, 0.0)) and not m.inside((0.59, 0.0), 0.1) and m.inside((0.61, 0.0), 0.1)


def test_sight_lines_by_hand():
    m = maze("umaze")
    a = np.array([[-1.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    seen = m.visible(a, np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]))
    assert seen.tolist() == [[True, False, False], [True, True, False], [True, True, False]]


def test_a_wider_clearance_hides_what_a_narrow_one_shows():
    m, a, b = maze("umaze"), np.array([[-1.0, 0.75]]), np.array([[1.2, 0.45]])
    assert m.visible(a, b, 0.01)[0, 0] and not m.visible(a, b, 0.2)[0, 0]


def test_geodesics_by_hand():
    m = maze("umaze")
    assert m.geodesic((-1.0, 1.0), (1.0, 1.0)) == pytest.approx(2.0)
    assert m.geodesic((-1.0, 1.0), (-1.0, -1.0)) == pytest.approx(2 * np.hypot(1.6, 0.4) + 1.2)
    np.testing.assert_allclose(
        m.route((-1.0, 1.0), (-1.0, -1.0), 0.2), [(-1.0, 1.0), (0.7, 0.7), (0.7, -0.7), (-1.0, -1.0)]
    )
    assert m.geodesic((-1.0, 1.0), (-1.0, -1.0), 0.2) == pytest.approx(2 * np.hypot(1.7, 0.3) + 1.4)
    assert m.geodesic((0.0, 1.0), (1.0, 0.0)) == pytest.approx(np.hypot(0.6, 0.4) + np.hypot(0.4, 0.6))


def test_geodesics_are_a_metric():
    m, source = maze("medium"), seeded()
    points = [m.spot(source) for _ in range(7)]
    d = np.array([[m.geodesic(a, b) for b in points] for a in points])
    np.testing.assert_allclose(d, d.T, atol=1e-12)
    assert (np.diag(d) == 0).all()
    for i, j, k in itertools.product(range(7), repeat=3):
        assert d[i, j] <= d[i, k] + d[k, j] + 1e-9


@pytest.mark.parametrize("name", ["umaze", "medium"])
def test_no_finer_search_finds_a_shorter_way(name):
    """Second route: Dijkstra over a fine lattice of points that keep the clearance; it can only be a little longer."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    m, step = maze(name), 0.1
    rows, columns = len(m.walls) * 10, len(m.walls[0]) * 10
    grid = step * np.stack(np.meshgrid(np.arange(columns) - columns / 2, np.arange(rows) - rows / 2, indexing="ij"), -1)
    number = np.arange(columns * rows).reshape(columns, rows)
    edges = []
    for dx, dy in [s for s in itertools.product(range(-3, 4), repeat=2) if np.gcd(*s) == 1]:
        a, b = (slice(max(0, -d), min(n, n - d)) for d, n in ((dx, columns), (dy, rows)))
        middle = grid[a, b][..., None, :] + np.linspace(0, 1, 5)[:, None] * step * np.array([dx, dy])
        fits = m.inside(middle, BALL - 1e-9).all(-1)
        first = number[a, b][fits]
        edges.append(np.stack([first, first + dx * rows + dy, np.full(len(first), step * np.hypot(dx, dy))], 1))
    i, j, weight = np.concatenate(edges).T
    graph = coo_matrix((weight, (i.astype(int), j.astype(int))), shape=(number.size,) * 2).tocsr()
    points, source = grid.reshape(-1, 2), np.random.default_rng(0)
    fits = np.flatnonzero(m.inside(points, BALL - 1e-9))
    for start in source.choice(fits, 3):
        fine = dijkstra(graph, indices=start)
        for goal in source.choice(fits, 12):
            exact = m.geodesic(points[start], points[goal])
            assert exact <= fine[goal] + 1e-6
            assert exact >= 0.95 * fine[goal] - 0.02


@pytest.mark.parametrize("name", list(LAYOUTS))
@pytest.mark.parametrize("clearance", [0.1, 0.2, 0.3, 0.45])
def test_routes_keep_their_clearance_and_their_ends(name, clearance):
    m = maze(name)
    for pair in m.pairs(6, seeded(3)):
        route = m.route(pair.start, pair.goal, clearance)
        np.testing.assert_array_equal(route[[0, -1]], [pair.start, pair.goal])
        inner = np.concatenate([np.linspace(a, b, 30) for a, b in itertools.pairwise(route[1:-1])] or [route[1:-1]])
        assert m.inside(inner, clearance - 1e-6).all()
        assert m.inside(np.concatenate([np.linspace(a, b, 30) for a, b in itertools.pairwise(route)]), BALL).all()


def test_points_at_a_wall_find_their_way_too():
    m = maze("umaze")
    assert m.geodesic((-1.45, 0.55), (-1.45, -0.55), 0.3) > 4.0
    assert len(m.route((0.52, 0.52), (-1.0, -1.0), 0.3)) >= 3


def test_pairs_are_far_around_and_seeded():
    m = maze("large")
    pairs = m.pairs(40, seeded(1), ratio=1.5)
    assert pairs == m.pairs(40, seeded(1), ratio=1.5)
    assert pairs[:3] != m.pairs(3, seeded(2), ratio=1.5)
    for pair in pairs:
        assert pair.geodesic >= 1.5 * pair.straight and pair.straight >= 2 * GOAL_RADIUS
        assert pair.geodesic == pytest.approx(m.geodesic(pair.start, pair.goal))
        assert pair.straight == pytest.approx(np.hypot(*np.subtract(pair.start, pair.goal)))
        for end in (pair.start, pair.goal):
            assert np.abs(np.subtract(end, m.centre(m.cell(end)))).max() <= SPREAD
        assert pair.options == {"start": pair.start, "goal": pair.goal}
    assert len({tuple(m.cell(pair.start)) for pair in pairs}) > 15


def test_the_tasks_own_numbers():
    assert (BALL, GOAL_RADIUS, SPREAD) == (0.1, 0.45, 0.25)


def test_spots_cover_every_cell_evenly():
    m, source = maze("umaze"), seeded()
    spots = np.array([m.spot(source) for _ in range(1400)])
    cells, counts = np.unique(m.cell(spots), axis=0, return_counts=True)
    assert len(cells) == 7 and counts.min() > 140 and counts.max() < 260
    offset = spots - m.centre(m.cell(spots))
    assert offset.min() < -0.24 and offset.max() > 0.24 and np.abs(offset.mean(0)).max() < 0.02


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maze("maze"), "choose one of umaze, medium, large"),
        (lambda: Maze(("##", "###")), "equal length"),
        (lambda: Maze(("###", "#x#", "###")), "made of #"),
        (lambda: Maze(("###", "#..", "###")), "opening"),
        (lambda: maze("umaze").route((0.0, 0.0), (1.0, 1.0)), "lies in a wall"),
        (lambda: maze("umaze").geodesic((-1.0, 1.0), (1.0, -1.0), 0.6), "clearance = 0.6"),
        (lambda: Maze(("#####", "#.#.#", "#####")).geodesic((-1.0, 0.0), (1.0, 0.0)), "no path"),
        (lambda: ROOM.pairs(1, seeded(), ratio=1.5), "found 0 of 1 pairs"),
    ],
)
def test_bad_mazes_and_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
