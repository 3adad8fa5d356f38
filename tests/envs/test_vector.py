import numpy as np
import pytest

from envs.tiny import Counter
from ornstein.envs.vector import Vector, name_of, success_of

ACTION = np.zeros((1, 1))


def test_rows_are_reset_and_stepped_by_name_only():
    vector = Vector(Counter, 3)
    first = vector.reset([0, 2], [5, 7])
    np.testing.assert_array_equal(first, [[0, 5], [0, 7]])
    assert [env.resets for env in vector.envs] == [[(5, None)], [], [(7, None)]]
    out = vector.step([2], np.array([[0.5]]))
    np.testing.assert_array_equal(out.obs, [[1, 7]])
    assert vector.envs[2].actions == [0.5] and vector.envs[0].actions == []


def test_the_last_reward_and_the_last_observation_are_the_episodes_own():
    vector = Vector(lambda: Counter(2), 1)
    vector.reset([0], [3])
    vector.step([0], ACTION)
    out = vector.step([0], ACTION)
    assert out.reward[0] == 10.0
    np.testing.assert_array_equal(out.obs, [[2, 3]])
    assert bool(out.terminal[0]) and not bool(out.truncated[0])


def test_an_ended_episode_must_be_reset_before_the_next_step():
    vector = Vector(lambda: Counter(1), 1)
    with pytest.raises(ValueError, match="no open episode"):
        vector.step([0], ACTION)
    vector.reset([0], [0])
    vector.step([0], ACTION)
    with pytest.raises(ValueError, match="no open episode"):
        vector.step([0], ACTION)


def test_truncation_is_not_termination():
    vector = Vector(lambda: Counter(1, ends=False), 1)
    vector.reset([0], [0])
    out = vector.step([0], ACTION)
    assert not bool(out.terminal[0]) and bool(out.truncated[0])


def test_reset_options_reach_their_row():
    vector = Vector(Counter, 2)
    vector.reset([0, 1], [1, 2], [{"length": 9}, None])
    assert vector.envs[0].length == 9 and vector.envs[1].resets == [(2, None)]


@pytest.mark.parametrize(
    ("info", "expected"),
    [({"success": True}, 1.0), ({"is_success": 0.0}, 0.0), ({"is_success": True, "success": False}, 1.0)],
)
def test_success_is_read_from_the_info(info, expected):
    assert success_of(info) == expected


def test_no_report_of_success_is_not_failure():
    assert np.isnan(success_of({"distance": 1.0}))


def test_goal_environments_are_joined_and_named():
    vector = Vector("PointMass-v0", 1)
    assert vector.name == "PointMass-v0" and vector.spaces.goal == 2
    assert vector.reset([0], [0]).shape == (1, 6)
    assert name_of(Counter()) == "Counter"
    with pytest.raises(ValueError, match="at least 1"):
        Vector("PointMass-v0", 0)
