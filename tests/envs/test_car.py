"""The bidirectional car: its steps by hand, what leaves it, and who recorded."""

import numpy as np
import pytest
import torch

from ornstein.envs.car import BidirectionalCar, recorded
from ornstein.envs.make import make, spaces


def test_steps_by_hand():
    env = BidirectionalCar()
    env.reset(seed=0, options={"x": 9.9})
    assert env.step(np.array([0.5]))[1:4] == (0.0, False, False)
    np.testing.assert_allclose(env.state, [9.9, 0.025])
    env.state[1] = 4.99
    obs, reward, terminal, truncated, info = env.step(np.array([3.0]))
    np.testing.assert_allclose(obs, [9.9 + 0.499, 5.0])
    assert (reward, terminal, truncated, info) == (1.0, True, False, {"success": True})


def test_full_throttle_leaves_after_61_to_67_steps_and_small_ones_never():
    env = make("BidirectionalCar-v0?scaled=true")
    for throttle, expected in ((1.0, True), (-1.0, True), (0.1, False)):
        counts = []
        for seed in range(20):
            obs, _ = env.reset(seed=seed)
            assert abs(obs[0]) <= 0.2 and obs[1] == 0.0
            terminal = truncated = False
            while not (terminal or truncated):
                _, _, terminal, truncated, _ = env.step(np.array([throttle]))
            assert terminal is expected and truncated is not expected
            counts.append(env.unwrapped._steps)
        assert (min(counts) >= 61 and max(counts) <= 67) if expected else counts == [100] * 20
    assert (spaces(env).obs, spaces(env).act) == (2, 1)


def test_recordings_follow_the_dynamics_and_end_where_the_car_left():
    r = recorded(20, torch.Generator().manual_seed(0), scaled=True)
    assert len(r.obs) == 80
    env = BidirectionalCar(scaled=True)
    for i in (0, 25, 45, 70):
        env.reset(options={"x": float(5 * r.obs[i][0, 0])})
        for action, after, reward in zip(r.action[i], r.obs[i][1:], r.reward[i], strict=True):
            obs, got, terminal, truncated, _ = env.step(action.numpy())
            np.testing.assert_allclose(obs, after, atol=1e-4)
            assert got == reward
        assert terminal == r.terminal[i] and (terminal or truncated)


def test_the_collectors_are_who_they_say():
    r = recorded(50, torch.Generator().manual_seed(0))
    constant, random, sticky, walk = (torch.cat(r.action[50 * i : 50 * i + 50]) for i in range(4))
    assert constant.abs().min() >= 0.9 and all(len(a.sign().unique()) == 1 for a in r.action[:50])
    assert random.std() == pytest.approx(3**-0.5, abs=0.02)
    assert sticky.abs().min() >= 0.7
    changes = torch.cat([a[1:].sign() != a[:-1].sign() for a in r.action[100:150]])
    assert float(changes.double().mean()) == pytest.approx(0.1, abs=0.02)
    assert max(float(a.diff(dim=0).abs().max()) for a in r.action[150:]) <= 0.5
    assert walk.abs().max() == 1.0
    starts = torch.stack([o[0, 0].abs() for o in r.obs]).view(4, 50).amax(1)
    for start, reach in zip(starts.tolist(), (5.0, 5.0, 2.5, 9.0), strict=True):
        assert 0.8 * reach < start <= reach
