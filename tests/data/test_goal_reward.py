import dataclasses

import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.goal import append_goal, goal_per_episode
from ornstein.data.reward import TRANSFORMS, reward_map, transform_reward


def test_goals_are_appended_to_each_observation(record):
    """Per episode, per step (the final observation keeps its step's) and per observation."""
    goals = {
        "episode": (torch.tensor([1.0, 2.0]), [1, 1, 1, 2, 2]),
        "step": (torch.tensor([1.0, 2.0, 3.0]), [1, 2, 2, 3, 3]),
        "row": (torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), [1, 2, 3, 4, 5]),
    }
    for kind, (goal, expected) in goals.items():
        data = record((2, 1), extras={"goal": goal[:, None], "seed": torch.arange(2)})
        assert data.belongs_to("goal") == kind
        appended = append_goal(data)
        assert appended.obs[:, 2].tolist() == expected
        assert torch.equal(appended.obs[:, :2], data.obs)
        assert (appended.spaces.obs, appended.spaces.goal) == (3, 0)
        assert set(appended.extras) == {"seed"}


def test_a_goal_per_step_stays_with_its_steps(record):
    appended = append_goal(record((3, 2, 2), extras={"goal": torch.arange(7.0)[:, None]}))
    assert appended.obs[:, 2].tolist() == [0, 1, 2, 2, 3, 4, 4, 5, 6, 6]


def test_without_a_goal_there_is_nothing_to_append(record):
    with pytest.raises(DataError, match="no extra 'goal' among none"):
        append_goal(record())


def test_a_goal_that_stays_is_stored_once_per_episode():
    lengths = torch.tensor([2, 1])
    still = torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0])[:, None]
    assert goal_per_episode(still, lengths).flatten().tolist() == [1, 2]
    moved = torch.tensor([1.0, 1.0, 1.0, 2.0, 3.0])[:, None]
    assert goal_per_episode(moved, lengths) is moved


def test_reward_transforms_by_hand(record):
    """Returns 1, 9 and 5 of three episodes: the range is 8, so locomotion rewards grow by 125."""
    data = record((2, 1, 2), reward=[0.0, 1.0, 9.0, 2.0, 3.0])
    changed = {name: transform_reward(data, name).reward.tolist() for name in TRANSFORMS}
    assert changed["none"] == [0, 1, 9, 2, 3]
    assert changed["antmaze-iql"] == [-1, 0, 8, 1, 2]
    assert changed["antmaze-cql"] == [-2, 2, 34, 6, 10]
    assert changed["locomotion-iql"] == [0, 125, 1125, 250, 375]
    spread = (50 / 5) ** 0.5
    assert changed["standardized"] == pytest.approx([-3 / spread, -2 / spread, 6 / spread, -1 / spread, 0.0], abs=1e-6)
    assert changed["min-max"] == pytest.approx([-1, -7 / 9, 1, -5 / 9, -1 / 3])
    assert transform_reward(data, "none") is data


def test_a_small_range_of_returns_can_be_scaled(record):
    assert transform_reward(record((1, 1), reward=[0.0, 0.5]), "locomotion-iql").reward.tolist() == [0, 1000]


def test_equal_returns_cannot_be_scaled(record):
    still = dataclasses.replace(record((1, 1, 1)), reward=torch.ones(3))
    for name, what in (("locomotion-iql", "3 returns"), ("standardized", "rewards"), ("min-max", "rewards")):
        with pytest.raises(DataError, match=f"all {what} are equal"):
            transform_reward(still, name)


def test_what_is_measured_on_records_needs_some():
    assert reward_map("antmaze-iql", None) == (1.0, -1.0)
    with pytest.raises(DataError, match="reward = 'min-max' is measured on recorded episodes"):
        reward_map("min-max", None)


@pytest.mark.graph
def test_an_unknown_transform_is_refused(record):
    with pytest.raises(DataError, match="'iql' is unknown: use one of none, antmaze-iql"):
        transform_reward(record(), "iql")
