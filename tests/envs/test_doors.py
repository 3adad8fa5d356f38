"""Two doors in every wall: what they pay, what is best, what gets stuck, and which cells can be reached."""

from typing import Any

import numpy as np
import pytest

from ornstein.envs import doors
from ornstein.envs.doors import NARROW, WIDE, Fixed, best_return, cell, pay, reachable
from ornstein.envs.make import make, spaces
from ornstein.evaluate import evaluate


def test_gymnasiums_checker_is_content():
    import gymnasium
    from gymnasium.utils.env_checker import check_env

    env = make("TwoDoors-v0?walls=3", flatten=False)
    assert isinstance(env, gymnasium.Env)
    check_env(env, skip_render_check=True)
    again = gymnasium.make(env.spec)  # pyright: ignore
    np.testing.assert_array_equal(again.reset(seed=3)[0], env.reset(seed=3)[0])
    assert (spaces(env).obs, spaces(env).act) == (3, 1)


def test_doors_pay_in_their_middles_and_walls_nothing():
    assert (pay(WIDE), pay(NARROW)) == (0.5, 0.4)
    assert pay(0.4 + 0.25) == pytest.approx(0.5 * 0.75)
    assert pay(-0.6 + 0.075) == pytest.approx(0.4 * 0.75)
    assert [pay(height) for height in (-1.0, -0.75, -0.45, -0.3, -0.1, 0.9, 1.0)] == pytest.approx([0.0] * 7)
    grid = np.linspace(-1, 1, 20_001)
    mean = float(np.mean([pay(h) for h in grid]))
    assert mean == pytest.approx((0.5 * 0.5 + 0.4 * 0.15) * 2 / 3, abs=1e-4)


def test_the_treasure_is_for_who_never_took_the_wide_door():
    env = make("TwoDoors-v0?walls=3&treasure=7.0")
    for heights, expected, found in (
        ((NARROW, NARROW, NARROW), 1.2 + 7.0, True),
        ((NARROW, WIDE, NARROW), 1.3, False),
        ((NARROW, NARROW, -0.75), 0.8, False),
    ):
        obs, info = env.reset(seed=0)
        total = 0.0
        for i, height in enumerate(heights):
            obs, reward, terminal, truncated, info = env.step(np.array([height]))
            total += float(reward)
            assert terminal == (i == 2) and not truncated
        assert total == pytest.approx(expected)
        assert info == {"success": found}
        assert obs.tolist() == pytest.approx([1.0, 1.0 if found else -1.0, heights[-1]])
    with pytest.raises(ValueError, match="is over"):
        env.step(np.array([0.0]))


def test_the_best_policy_and_the_one_that_gets_stuck():
    policies: list[Any] = [Fixed(NARROW), Fixed(WIDE)]
    best, stuck = (evaluate(policy, "TwoDoors-v0", episodes=3) for policy in policies)
    assert best.returns == pytest.approx([best_return()] * 3) and best.success == (1.0, 1.0, 1.0)
    assert stuck.returns == pytest.approx([2.0] * 3) and stuck.success == (0.0, 0.0, 0.0)
    assert best_return() == 4.6 and best_return(5, 0.2) == 2.5
    with pytest.raises(ValueError, match="walls = 0"):
        doors.doors(walls=0)
    cut = make("TwoDoors-v0?max_episode_steps=2")
    cut.reset(seed=0)
    assert [cut.step(np.array([0.0]))[2:4] for _ in range(2)] == [(False, False), (False, True)]


@pytest.mark.parametrize("walls", ["2.5", "0", "-1", "many", "3.0"])
@pytest.mark.graph
def test_a_corridor_has_a_whole_number_of_walls(walls):
    with pytest.raises(ValueError, match=rf"walls = {walls}: .*whole number of at least 1"):
        make(f"TwoDoors-v0?walls={walls}")


def test_the_reachable_cells_are_those_that_all_heights_lead_to():
    """Every pair of heights in both halves of every bin, over two walls."""
    env, found = make("TwoDoors-v0?walls=2"), set()
    heights = np.linspace(-0.99, 0.99, 100)
    for first in heights:
        for second in heights:
            env.reset(seed=0)
            for height in (first, second):
                found.add(cell(env.step(np.array([height]))[0], 2))
    assert len(found) == reachable(2) == 46
    assert reachable() == 94
