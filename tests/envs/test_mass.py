import numpy as np
import pytest
import torch

from ornstein.envs.mass import FORCE, PointMass, crosses_wall, segments
from ornstein.envs.maze import maze

U = maze("umaze")


def test_one_push_by_hand():
    env = PointMass()
    env.reset(seed=0, options={"start": (1.0, 0.0), "goal": (-1.0, 1.0)})
    obs, reward, terminal, truncated, info = env.step(np.array([0.5, -3.0]))
    mass = 1000.0 * 4.0 / 3.0 * np.pi * 0.001
    gain = 100.0 / (mass + 0.01)
    assert pytest.approx(gain) == FORCE == pytest.approx(23.8166, abs=1e-3)
    np.testing.assert_allclose(obs["observation"], [1.0 + 5e-5 * gain, -1e-4 * gain, 0.005 * gain, -0.01 * gain])
    assert (reward, terminal, truncated, info) == (0.0, False, False, {"success": False})


def test_damping_slows_down():
    env = PointMass()
    env.reset(seed=0, options={"start": (1.0, 0.0), "goal": (-1.0, 1.0)})
    env.velocity = np.array([2.0, 0.0])
    env.step(np.zeros(2))
    assert env.velocity[0] == pytest.approx(2.0 * (1.0 - 0.01 / (1000.0 * 4.0 / 3.0 * np.pi * 0.001 + 0.01)))


def test_speed_is_clipped_before_each_push():
    env = PointMass()
    env.reset(seed=0, options={"start": (1.0, 0.0), "goal": (-1.0, 1.0)})
    env.velocity = np.array([0.0, 9.0])
    env.step(np.zeros(2))
    assert env.velocity[1] == pytest.approx(5.0 * (1.0 - 0.01 / (1000.0 * 4.0 / 3.0 * np.pi * 0.001 + 0.01)))


def test_walls_stop_the_mass_but_let_it_slide():
    env = PointMass()
    env.reset(seed=0, options={"start": (1.0, 0.0), "goal": (-1.0, 1.0)})
    for _ in range(60):
        obs, *_ = env.step(np.array([1.0, 0.3]))
    x, y, vx, _ = obs["observation"]
    assert x == pytest.approx(1.375, abs=0.025), "at the wall, not before it nor in it"
    assert vx == 0.0, "stopped"
    assert y > 0.3, "and slid along"
    assert U.inside((x, y), 0.1)


def test_the_fast_collision_check_is_the_exact_one():
    env, points = PointMass("large"), np.random.default_rng(0).uniform([-5.8, -4.3], [5.8, 4.3], (3000, 2))
    assert [env._fits(xy) for xy in points] == env.maze.inside(points, 0.1).tolist()


def test_time_limit_and_success():
    env = PointMass(max_episode_steps=2)
    env.reset(seed=0, options={"start": (1.0, 0.0), "goal": (-1.0, 1.0)})
    assert env.step(np.zeros(2))[2:4] == (False, False)
    assert env.step(np.zeros(2))[2:4] == (False, True)
    env.reset(seed=0, options={"start": (1.0, 0.0), "goal": (1.0, 0.4)})
    assert env.step(np.zeros(2))[1:4] == (1.0, True, False)
    with pytest.raises(ValueError, match="free point"):
        env.reset(seed=0, options={"start": (0.0, 0.0)})


def test_resets_are_seeded():
    env = PointMass()
    first, second, other = (env.reset(seed=s)[0]["observation"] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_segments_are_short_pieces_of_law_abiding_rides():
    recordings = segments(U, 60, torch.Generator().manual_seed(0))
    assert recordings.obs.shape == (60, 33, 4) and recordings.action.shape == (60, 32, 2)
    way = recordings.obs[:, :, :2].diff(dim=1).norm(dim=-1).sum(1)
    assert float(way.max()) <= 2.25 * 1.001 and float(way.median()) > 1.0
    assert not any(crosses_wall(U, path[:, :2].numpy()) for path in recordings.obs)
    gained = recordings.obs[:, :, 2:].diff(dim=1)
    torch.testing.assert_close(recordings.action * 0.04 * FORCE, gained, atol=1e-5, rtol=1e-4)
    cells = np.unique(U.cell(recordings.obs[:, :, :2].reshape(-1, 2).numpy()), axis=0)
    assert len(cells) == 7
    longest = U.geodesic((-1.25, 1.25), (-1.25, -1.25))
    assert longest / 2 > 2.25


def test_crossing_is_seen_between_points_too():
    assert crosses_wall(U, np.array([[-1.0, 1.0], [-1.0, -1.0]]))
    assert crosses_wall(U, np.array([[-1.0, 1.0], [0.0, 0.0]]))
    assert not crosses_wall(U, np.array([[-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]]))
