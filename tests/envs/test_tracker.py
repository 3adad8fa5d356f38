import numpy as np
import pytest
import torch

from ornstein.envs.mass import PointMass
from ornstein.envs.maze import maze
from ornstein.envs.tracker import STEP, Controller, trajectory
from ornstein.evaluate import evaluate
from ornstein.track import KD, KP, at, track

PLAN = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 4.0, 8.0], [3.0, 2.0, 1.0, -1.0]]])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (0.0, (0, 0, 0, 0)),
        (0.25, (0.25, 0.5, 1.0, 2.0)),
        (1.0, (1, 2, 4, 8)),
        (1.5, (2, 2, 2.5, 3.5)),
        (2.0, (3, 2, 1, -1)),
        (2.5, (3, 2, 0, 0)),
        (99.0, (3, 2, 0, 0)),
    ],
)
def test_the_reference_between_rows_by_hand(row, expected):
    np.testing.assert_allclose(at(PLAN, torch.tensor([row]))[0], expected)


def test_the_force_by_hand():
    obs = torch.tensor([[0.24, 0.5, 1.0, 2.1, 9.0, 9.0]])
    force = track(obs, PLAN, torch.tensor([0.0]), stride=4.0)  # the reference is row 1/4
    np.testing.assert_allclose(force[0], [KP * 0.01, KD * -0.1], rtol=1e-5)
    np.testing.assert_allclose(
        track(obs, PLAN, torch.tensor([0.0]), stride=4.0, kp=2.0, kd=0.0)[0], [0.02, 0.0], atol=1e-7
    )
    assert (KP, KD) == (16.0, 1.5)
    for sign in (1.0, -1.0):
        far = track(torch.zeros(1, 4), sign * PLAN, torch.tensor([7.0]), stride=4.0)
        assert far.tolist() == [[sign, sign]]


def test_rows_are_tracked_each_at_its_own_age():
    plan, obs = PLAN.expand(3, -1, -1), torch.zeros(3, 4)
    together = track(obs, plan, torch.tensor([0.0, 3.0, 9.0]), kp=0.01, kd=0.01)
    for i, age in enumerate((0.0, 3.0, 9.0)):
        alone = track(obs[i : i + 1], PLAN, torch.tensor([age]), kp=0.01, kd=0.01)
        assert torch.equal(together[i : i + 1], alone)


def test_a_straight_ride_by_hand():
    """1 m at no more than 1 m/s and 2 m/s^2: half a second up, half a second steady, half a second down."""
    ride = trajectory(np.array([[0.0, 0.0], [0.0, 1.0]]), speed=1.0, accel=2.0)
    time = np.arange(len(ride)) * STEP
    assert time[-1] == pytest.approx(1.5, abs=0.02)
    np.testing.assert_allclose(ride[:, [0, 2]], 0.0, atol=1e-12)
    np.testing.assert_allclose(
        np.interp([0.25, 0.5, 0.75, 1.0, 1.25], time, ride[:, 1]), [1 / 16, 0.25, 0.5, 0.75, 15 / 16], atol=0.006
    )
    np.testing.assert_allclose(np.interp([0.255, 0.755, 1.255], time, ride[:, 3]), [0.5, 1.0, 0.5], atol=0.03)
    np.testing.assert_allclose(ride[-1, :2], [0.0, 1.0])


def test_rides_keep_their_speed_and_their_acceleration_and_agree_with_their_velocities():
    route = maze("umaze").route((-1.2, 1.1), (-1.1, -0.9), 0.3)
    ride = trajectory(route)
    np.testing.assert_allclose(ride[[0, -1], :2], route[[0, -1]], atol=1e-9)
    np.testing.assert_allclose(np.diff(ride[:, :2], axis=0), STEP * ride[1:, 2:], atol=1e-12)
    assert np.linalg.norm(ride[:, 2:], axis=1).max() <= 4.0 + 1e-6
    push = np.linalg.norm(np.diff(ride[:, 2:], axis=0), axis=1) / STEP
    assert push.max() <= np.hypot(14.0, 14.0) * 1.1 and np.median(push) <= 14.0 * 1.01
    assert maze("umaze").inside(ride[:, :2], 0.1).all()


def test_standing_still_is_a_ride_too():
    ride = trajectory(np.array([[1.0, 2.0], [1.0, 2.0]]))
    assert ride.tolist() == [[1.0, 2.0, 0.0, 0.0]]


def rollout(name, controller, pairs, limit):
    options = [pair.options for pair in pairs]
    return evaluate(
        controller, lambda: PointMass(name, max_episode_steps=limit), episodes=len(pairs), options=options, n_envs=20
    )


@pytest.mark.parametrize(("name", "limit"), [("umaze", 300), ("large", 800)])
def test_the_controller_arrives_and_the_straight_line_does_not(name, limit):
    m = maze(name)
    pairs = m.pairs(12, torch.Generator().manual_seed(5), ratio=1.5)
    found = rollout(name, Controller(m, jitter=0.2), pairs, limit)
    assert found.success == (1.0,) * 12
    pace = np.array([p.geodesic for p in pairs]) / np.array(found.lengths)
    assert 0.022 < pace.mean() < 0.05
    straight = rollout(name, Controller(m, straight=True), pairs, 300)
    assert sum(straight.success or ()) <= 1


def test_the_straight_line_is_enough_where_nothing_is_in_the_way():
    pair = maze("umaze").pairs(1, torch.Generator().manual_seed(0))[0]._replace(start=(-1.0, 1.0), goal=(1.1, 1.0))
    assert rollout("umaze", Controller(maze("umaze"), straight=True), [pair], 200).success == (1.0,)


def test_the_driver_is_the_controller_without_tensors():
    env, controller = PointMass(), Controller(maze("umaze"))
    drive, carry = controller.driver(), controller.start(1)
    for options in ({"start": (-1.0, 1.0), "goal": (-1.0, -1.0)}, {"start": (1.0, 0.0), "goal": (-1.0, -1.0)}):
        obs, _ = env.reset(seed=0, options=options)
        for _ in range(40):
            flat = np.concatenate([obs["observation"], obs["desired_goal"]])
            force, carry = controller.act(torch.from_numpy(flat)[None], carry, {})
            np.testing.assert_allclose(drive(obs), force[0], atol=1e-6)
            obs, *_ = env.step(force[0].numpy())
        carry = controller.start(1)


def test_jitter_is_the_noise_that_comes_in():
    controller = Controller(maze("umaze"), jitter=0.1)
    obs, noise = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.02]]), {"force": torch.tensor([[1.0, -2.0]])}
    calm, _ = Controller(maze("umaze")).act(obs, controller.start(1), {})
    shaken, carry = controller.act(obs, controller.start(1), noise)
    np.testing.assert_allclose(shaken - calm, [[0.1, -0.2]], atol=1e-6)
    assert Controller(maze("umaze")).noise == {} and controller.noise["force"].shape == (2,)
    assert carry.age.tolist() == [1.0] and carry.goal.tolist() == obs[:, 4:6].tolist()


def test_shaken_forces_stay_within_their_bounds():
    controller = Controller(maze("umaze"), jitter=50.0)
    obs, noise = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.02]]), {"force": torch.tensor([[1.0, -2.0]])}
    assert controller.act(obs, controller.start(1), noise)[0].tolist() == [[1.0, -1.0]]
    drive = controller.driver(seed=3)
    forces = np.array([drive(obs[0].double().numpy()) for _ in range(20)])
    assert set(np.abs(forces).ravel()) == {1.0} and forces.min() == -1.0
    assert (np.array([controller.driver(seed=3)(obs[0].double().numpy())]) == forces[:1]).all()


def test_the_pace_of_the_controller():
    controller = Controller(maze("umaze"))
    assert (controller.speed, controller.accel, controller.clearance) == (4.0, 14.0, 0.3)


def test_a_new_goal_is_planned_for_and_the_other_rows_ride_on():
    controller = Controller(maze("umaze"))
    obs = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0, 1.0, 1.0]])
    _, carry = controller.act(obs, controller.start(2), {})
    moved = obs.clone()
    moved[1, 4:6] = torch.tensor([-1.0, -1.0])
    _, after = controller.act(moved, carry, {})
    assert after.age.tolist() == [2.0, 1.0]
    assert torch.equal(after.plan[0], carry.plan[0]) and not torch.equal(after.plan[1], carry.plan[1])
    np.testing.assert_allclose(after.plan[1, -1], [-1.0, -1.0, 0.0, 0.0], atol=1e-6)


def test_a_ride_of_a_few_millimetres_arrives_too():
    ride = trajectory(np.array([[0.0, 0.0], [0.003, 0.004]]))
    assert np.isfinite(ride).all()
    np.testing.assert_allclose(ride[-1, :2], [0.003, 0.004], atol=1e-9)
    np.testing.assert_allclose(ride[0], 0.0, atol=1e-9)
