import numpy as np
import pytest
import torch

from ornstein.envs.make import make
from ornstein.envs.toy import (
    CORNERS,
    REWARDS,
    FourCorners,
    Pendulum,
    corner_of,
    corner_shares,
    eight_modes,
    four_corners,
    pendulum,
    ring,
    ring_shares,
)


def test_the_law_of_the_bandit():
    data = four_corners(40_000, torch.Generator().manual_seed(0))
    corner = corner_of(data.action)
    assert int(corner.min()) == 0
    for i, (middle, mean) in enumerate(
        zip([(-0.8, 0.8), (-0.8, -0.8), (0.8, 0.8), (0.8, -0.8)], (3, 0, 1.5, 5), strict=True)
    ):
        here = corner == i
        assert float(here.double().mean()) == pytest.approx(0.25, abs=0.01)
        torch.testing.assert_close(data.action[here].mean(0), torch.tensor(middle), atol=2e-3, rtol=0)
        torch.testing.assert_close(data.action[here].std(0), torch.full((2,), 0.05), atol=2e-3, rtol=0)
        assert float(data.reward[here].mean()) == pytest.approx(mean, abs=0.02)
        assert float(data.reward[here].std()) == pytest.approx(0.5, abs=0.02)
    assert float(data.action.abs().max()) <= 1.0
    assert not data.obs.any() and not data.next_obs.any() and bool(data.terminal.all()) and not data.discount.any()


def test_the_data_repeat_with_their_seed():
    first, second, other = (four_corners(5, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first.action, second.action) and not torch.equal(first.action, other.action)


def test_shares_by_hand():
    action = torch.tensor([[0.8, -0.8], [0.8, -0.6], [-0.8, 0.8], [0.0, 0.0], [0.8, -0.54]])
    assert corner_of(action).tolist() == [3, 3, 0, -1, -1]
    assert corner_shares(action) == pytest.approx((0.2, 0.0, 0.0, 0.4, 0.4))


def test_the_environment_pays_the_corners_and_nothing_else():
    env = FourCorners(noisy=False)
    for corner, mean in zip(CORNERS, REWARDS, strict=True):
        env.reset(seed=0)
        obs, reward, terminal, truncated, info = env.step(np.array(corner))
        assert (obs.tolist(), reward, terminal, truncated) == ([0.0], mean, True, False)
        assert info["success"] == (mean == 5.0)
    assert env.step(np.array([0.0, 0.0]))[1] == 0.0
    assert FourCorners().step(np.array([0.0, 0.0]))[1] == 0.0
    noisy = FourCorners()
    noisy.reset(seed=0)
    rewards = [noisy.step(np.array([0.8, -0.8]))[1] for _ in range(400)]
    assert np.mean(rewards) == pytest.approx(5.0, abs=0.1) and np.std(rewards) == pytest.approx(0.5, abs=0.06)


def test_the_pendulum_by_hand():
    """Hanging sideways at rest with torque 2: speed gains (15 sin(pi/2) + 6) 0.05 = 1.05."""
    then, reward = pendulum(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[2.0]]))
    angle = np.pi / 2 + 0.0525
    np.testing.assert_allclose(then[0], [np.cos(angle), np.sin(angle), 1.05], atol=1e-6)
    assert float(reward) == pytest.approx(-(np.pi**2 / 4 + 0.004), abs=1e-6)


def test_a_heavier_longer_pendulum_by_hand():
    """15 / 2 sin(pi/2) + 3 / (2 2^2) 1.6 = 8.1."""
    then, _ = Pendulum(mass=2.0, length=2.0)(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([[1.6]]))
    assert float(then[0, 2]) == pytest.approx(0.05 * 8.1, abs=1e-6)


def test_the_pendulum_is_gymnasiums():
    env = make("Pendulum-v1")
    obs, _ = env.reset(seed=0)
    source = np.random.default_rng(0)
    for _ in range(150):
        action = source.uniform(-3.0, 3.0, 1)
        expected, reward, *_ = env.step(action)
        then, mine = pendulum(torch.tensor(obs)[None].double(), torch.tensor(action)[None])
        np.testing.assert_allclose(then[0], expected, atol=2e-5)
        assert float(mine) == pytest.approx(reward, abs=2e-5)
        obs = expected


def test_the_ring_has_eight_modes_of_rising_reward():
    data = eight_modes(40_000, torch.Generator().manual_seed(0))
    shares, far = ring_shares(data.action)
    assert far < 1e-3
    assert shares == pytest.approx([1 / 8] * 8, abs=0.01)
    torch.testing.assert_close(ring()[2], torch.tensor([0.0, 2.0]), atol=1e-6, rtol=0)
    for i in range(8):
        here = data.reward == i / 7
        torch.testing.assert_close(data.action[here].mean(0), ring()[i], atol=0.01, rtol=0)
        torch.testing.assert_close(data.action[here].std(0), torch.full((2,), 0.15), atol=0.01, rtol=0)
    assert ring_shares(torch.tensor([[2.0, 0.7], [0.0, -2.0]])) == ((0.5, 0, 0, 0, 0, 0, 0.5, 0), 0.5)
