import numpy as np
import pytest
import torch

from ornstein.envs.make import flat
from ornstein.envs.mass import PointMass
from ornstein.envs.maze import maze
from ornstein.envs.point import Errands, PointMaze
from ornstein.envs.tracker import Controller
from ornstein.evaluate import evaluate


@pytest.fixture(scope="module")
def point():
    env = PointMaze("umaze")
    yield env
    env.close()


def test_start_and_goal_are_placed_exactly(point):
    obs, info = point.reset(seed=3, options={"start": (-1.2, 0.9), "goal": (1.1, -0.8)})
    np.testing.assert_array_equal(obs["observation"], [-1.2, 0.9, 0.0, 0.0])
    np.testing.assert_array_equal(obs["desired_goal"], [1.1, -0.8])
    assert info["success"] is False
    after, *_ = point.step(np.zeros(2))
    np.testing.assert_allclose(after["observation"][:2], [-1.2, 0.9], atol=1e-6)
    np.testing.assert_array_equal(after["desired_goal"], [1.1, -0.8])


def test_start_or_goal_alone_can_be_placed(point):
    obs, _ = point.reset(seed=3, options={"start": (1.2, 0.1)})
    usual, _ = point.reset(seed=3)
    np.testing.assert_array_equal(obs["achieved_goal"], [1.2, 0.1])
    np.testing.assert_array_equal(obs["desired_goal"], usual["desired_goal"])
    obs, _ = point.reset(seed=3, options={"goal": (1.2, 0.1)})
    np.testing.assert_array_equal(obs["desired_goal"], [1.2, 0.1])
    np.testing.assert_array_equal(obs["achieved_goal"], usual["achieved_goal"])


def test_without_options_it_is_the_simulators_own_reset(point):
    obs, _ = point.reset(seed=3)
    same, _ = point.env.reset(seed=3)
    np.testing.assert_array_equal(obs["observation"], same["observation"])
    cells, _ = point.reset(seed=3, options={"reset_cell": np.array([1, 1]), "goal_cell": np.array([3, 1])})
    assert np.abs(cells["achieved_goal"] - [-1.0, 1.0]).max() <= 0.25 + 1e-9


def test_success_ends_the_episode_at_the_disc_and_pays_one(point):
    point.reset(seed=0, options={"start": (1.0, 0.0), "goal": (1.0, 0.449)})
    _, reward, terminal, truncated, info = point.step(np.zeros(2))
    assert (reward, terminal, truncated, info["success"]) == (1.0, True, False, True)
    point.reset(seed=0, options={"start": (1.0, 0.0), "goal": (1.0, 0.451)})
    _, reward, terminal, _, info = point.step(np.zeros(2))
    assert (reward, terminal, info["success"]) == (0.0, False, False)


@pytest.mark.parametrize("options", [{"start": (0.0, 0.0)}, {"goal": (0.0, 0.0)}, {"goal": 3.0}])
def test_points_in_walls_are_refused(point, options):
    with pytest.raises(ValueError, match="not a free point"):
        point.reset(seed=0, options=options)


def test_unknown_mazes_are_refused():
    with pytest.raises(ValueError, match="choose one of"):
        PointMaze("giant")


def test_the_point_mass_moves_as_the_simulator_does(point):
    options = {"start": (-1.2, 1.1), "goal": (-1.0, -1.0)}
    real, toy = flat(point), flat(PointMass())
    obs, _ = real.reset(seed=0, options=options)
    same, _ = toy.reset(seed=0, options=options)
    controller = Controller(maze("umaze"))
    carry = controller.start(1)
    for _ in range(110):
        np.testing.assert_allclose(same, obs, atol=1e-12)
        force, carry = controller.act(torch.from_numpy(obs)[None], carry, {})
        obs, reward, terminal, *_ = real.step(force[0].numpy())
        same, reward_too, terminal_too, *_ = toy.step(force[0].numpy())
        assert (reward, terminal) == (reward_too, terminal_too)


def test_the_controller_arrives_in_the_simulator():
    m = maze("umaze")
    pairs = m.pairs(20, torch.Generator().manual_seed(7), ratio=1.5)
    options = [pair.options for pair in pairs]
    found = evaluate(Controller(m, jitter=0.2), PointMaze, episodes=20, n_envs=5, options=options)
    assert sum(found.success or ()) >= 19
    assert np.mean(found.lengths) < 160
    straight = evaluate(Controller(m, straight=True), PointMaze, episodes=5, n_envs=5, options=options[:5])
    assert sum(straight.success or ()) == 0


def test_errands_go_through_the_whole_maze_from_goal_to_goal():
    m = maze("umaze")
    found = evaluate(
        Controller(m, jitter=0.1), lambda: Errands(max_episode_steps=1500), episodes=3, n_envs=3, keep_paths=True
    )
    assert found.lengths == (1500,) * 3 and found.terminals == (False,) * 3
    path = np.concatenate(found.paths)
    cells, counts = np.unique(m.cell(path[:, :2]), axis=0, return_counts=True)
    assert len(cells) == 7 and counts.min() > 0.03 * len(path)
    for one in found.paths:
        changed = np.flatnonzero((np.diff(one[:, 4:6], axis=0) != 0).any(1))
        assert len(changed) >= 8
        reached = np.linalg.norm(one[changed + 1, :2] - one[changed, 4:6], axis=1)
        assert reached.max() < 0.1


def test_an_errand_ends_after_its_last_goal_and_its_stay():
    env = Errands(goals=2, stay=5, radius=0.2)
    drive = Controller(maze("umaze")).driver()
    obs, _ = env.reset(seed=1, options={"start": (-1.0, 1.0), "goal": (0.0, 1.0)})
    goals, inside, steps, over = [tuple(obs["desired_goal"])], 0, 0, False
    while not over:
        obs, _, terminal, over, _ = env.step(drive(obs))
        steps += 1
        inside += tuple(obs["desired_goal"]) == (0.0, 1.0) and np.linalg.norm(obs["achieved_goal"] - [0, 1]) < 0.2
        goals += [tuple(obs["desired_goal"])] if goals[-1] != tuple(obs["desired_goal"]) else []
        assert not terminal and steps < 1000
    assert len(goals) == 2 and inside == 5
    assert np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"]) < 0.2
    again, _ = env.reset(seed=1)
    first, _ = Errands().reset(seed=1)
    np.testing.assert_array_equal(again["observation"], first["observation"])
    env.close()
