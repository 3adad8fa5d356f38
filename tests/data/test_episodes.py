import dataclasses

import numpy as np
import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes, concatenate, interleave, ragged
from ornstein.types import Spaces


def test_counts_and_offsets_of_three_episodes(record):
    data = record((3, 1, 4))
    assert (data.n_episodes, data.n_steps) == (3, 8)
    assert data.offsets.tolist() == [0, 3, 4]
    assert data.rows.tolist() == [0, 4, 6]
    assert data.nbytes == 11 * 2 * 4 + 8 * 4 + 8 * 4 + 8 + 8 + 3 * 8 + 3


def test_returns_sum_each_episode_for_itself(record):
    assert record((3, 1, 4)).returns.tolist() == [1 + 2 + 3, 4, 5 + 6 + 7 + 8]


def test_returns_are_summed_in_float64(record):
    data = record((3,), reward=[2.0**25, 1.0, 1.0])
    assert data.returns.tolist() == [2**25 + 2]


def test_bounds_are_the_unit_box_widened_by_the_data(record):
    data = dataclasses.replace(record((2,), act=2), action=torch.tensor([[0.5, -3.0], [1.5, 0.0]]))
    assert data.spaces == Spaces(2, 2, 0, (-1.0, -3.0), (1.5, 1.0))
    told = dataclasses.replace(data, action_low=(-4.0, -4.0), action_high=(4.0, 4.0))
    assert told.spaces == Spaces(2, 2, 0, (-4.0, -4.0), (4.0, 4.0))


def test_the_goal_is_the_extra_of_that_name(record):
    assert record((2, 1), extras={"goal": torch.zeros(2, 3)}).spaces.goal == 3
    assert record((2, 1), extras={"task": torch.zeros(2, 3)}).spaces.goal == 0


def test_extras_belong_to_what_their_number_says(record):
    extras = {"a": torch.zeros(2), "b": torch.zeros(5), "c": torch.zeros(7)}
    data = record((3, 2), extras=extras)
    assert [data.belongs_to(name) for name in "abc"] == ["episode", "step", "row"]


def test_select_takes_whole_episodes_in_the_given_order(record):
    extras = {"e": torch.arange(3), "s": torch.arange(8), "r": torch.arange(11)}
    data = record((3, 1, 4), terminal=(1,), known=(True, False, True), extras=extras).select([2, 1])
    assert data.lengths.tolist() == [4, 1]
    assert data.obs[:, 0].tolist() == [600, 700, 800, 900, 1000, 400, 500]
    assert data.reward.tolist() == [5, 6, 7, 8, 4]
    assert data.action[:, 0].tolist() == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.03])
    assert data.terminal.tolist() == [False] * 4 + [True]
    assert data.truncated.tolist() == [False] * 3 + [True, False]
    assert data.final_known.tolist() == [True, False]
    assert data.extras["e"].tolist() == [2, 1]
    assert data.extras["s"].tolist() == [4, 5, 6, 7, 3]
    assert data.extras["r"].tolist() == [6, 7, 8, 9, 10, 4, 5]


@pytest.mark.parametrize("indices", [[], [3], [-1]])
def test_select_refuses_what_is_not_there(record, indices):
    with pytest.raises(DataError, match=r"\[0, 3\)"):
        record((3, 1, 4)).select(indices)


def test_split_keeps_every_episode_once(record):
    data = record((1,) * 20)
    train, held_out = data.split(0.25, torch.Generator().manual_seed(1))
    again = data.split(0.25, torch.Generator().manual_seed(1))[1]
    other = data.split(0.25, torch.Generator().manual_seed(2))[1]
    assert (train.n_episodes, held_out.n_episodes) == (15, 5)
    assert sorted(train.reward.tolist() + held_out.reward.tolist()) == list(range(1, 21))
    assert again.hash == held_out.hash != other.hash


def test_split_leaves_an_episode_on_each_side(record):
    train, held_out = record((2, 2)).split(0.01, torch.Generator())
    assert (train.n_episodes, held_out.n_episodes) == (1, 1)
    train, held_out = record((2, 2)).split(0.99, torch.Generator())
    assert (train.n_episodes, held_out.n_episodes) == (1, 1)


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 3), (1.0, 3), (0.5, 1)])
def test_split_refuses_shares_that_leave_nothing(record, fraction, count):
    with pytest.raises(DataError, match="validation share"):
        record((2,) * count).split(fraction, torch.Generator())


def test_without_unknown_cuts_the_steps_whose_outcome_is_not_known(record):
    data = record((3, 1, 4), terminal=(2,), known=(True, False, False)).without_unknown()
    assert data.lengths.tolist() == [3, 3]
    assert data.reward.tolist() == [1, 2, 3, 5, 6, 7]
    assert data.obs[:, 0].tolist() == [0, 100, 200, 300, 600, 700, 800, 900]
    assert data.truncated.tolist() == [False, False, True, False, False, True]
    assert not data.terminal.any()
    assert data.final_known.all()


def test_without_unknown_refuses_to_leave_nothing(record):
    with pytest.raises(DataError, match="no step has a known next observation"):
        record((1, 1), known=(False, False)).without_unknown()


def test_the_hash_depends_on_every_array_and_on_nothing_else(record):
    data = record((3, 1, 4), terminal=(0,), extras={"goal": torch.zeros(3, 2)})
    changes = {
        "obs": data.obs + 1,
        "action": data.action + 0.001,
        "reward": data.reward * 2,
        "terminal": data.terminal | data.truncated,
        "truncated": data.truncated | data.terminal.index_fill(0, torch.tensor([2]), True),
        "final_known": ~data.final_known,
        "extras": {"goal": torch.ones(3, 2)},
        "action_high": (2.0,),
    }
    hashes = {dataclasses.replace(data, **{name: value}).hash for name, value in changes.items()}
    assert len(hashes) == len(changes)
    assert data.hash not in hashes
    assert dataclasses.replace(data, env="Hopper-v5").hash == data.hash
    assert dataclasses.replace(data, action_low=(-1.0,), action_high=(1.0,)).hash == data.hash
    named = dataclasses.replace(data, extras={"aim": torch.zeros(3, 2)})
    assert named.hash != data.hash


def test_the_hash_of_a_known_recording_stays_the_same(record):
    """Run cards quote it: a new value here means that old cards no longer match their data."""
    assert record((3, 1, 4)).hash == "37895a6dd0ea78866703a47035f179321df3793f9148f74ae772f81b302318d9"


def test_describe_in_plain_values(record):
    told = record((3, 1, 4), terminal=(0,), known=(True, False, True), extras={"goal": torch.zeros(3, 2)}).describe()
    assert told["episodes"] == 3
    assert told["steps"] == 8
    assert (told["obs"], told["act"], told["goal"]) == (2, 1, 2)
    assert (told["length_min"], told["length_max"]) == (1, 4)
    assert told["length_mean"] == pytest.approx(8 / 3)
    assert told["return_mean"] == pytest.approx((6 + 4 + 26) / 3)
    assert told["return_std"] == pytest.approx(np.std([6, 4, 26]))
    assert (told["return_min"], told["return_max"]) == (4, 26)
    assert told["terminal_share"] == pytest.approx(1 / 3)
    assert told["final_known_share"] == pytest.approx(2 / 3)
    assert told["action_min"] == [0.0]
    assert told["action_max"] == [pytest.approx(0.07)]
    assert told["extras"] == {"goal": [3, 2]}


def test_from_lists_joins_episodes_and_marks_their_ends():
    data = Episodes.from_lists(
        [np.zeros((3, 2)), np.ones((2, 2))],
        [np.zeros((2, 1)), np.ones((1, 1))],
        [np.array([1.0, 2.0]), np.array([3.0])],
        terminal=[True, False],
        extras={"goal": np.zeros((2, 2))},
        action_low=(-2.0,),
        action_high=(2.0,),
    )
    assert data.obs[:, 0].tolist() == [0, 0, 0, 1, 1]
    assert data.terminal.tolist() == [False, True, False]
    assert data.truncated.tolist() == [False, False, True]
    assert data.final_known.all()
    assert data.obs.dtype == data.extras["goal"].dtype == torch.float32
    assert data.spaces.action_high == (2.0,)


def test_from_lists_repeats_the_last_observation_where_the_final_one_is_missing():
    data = Episodes.from_lists([[[1.0], [2.0]]], [[[0.0], [0.0]]], [[0.0, 0.0]], terminal=[False])
    assert data.obs.flatten().tolist() == [1, 2, 2]
    assert not data.final_known.any()


def test_from_lists_refuses_contradictions():
    zeros = np.zeros
    with pytest.raises(DataError, match=r"'obs' of episode 0|'obs of episode 0' has shape \(4, 2\), but 3 rows"):
        Episodes.from_lists([zeros((4, 2))], [zeros((2, 1))], [zeros(2)], terminal=[True])
    with pytest.raises(DataError, match=r"'action of episode 0' has shape \(3, 1\), but 2 rows"):
        Episodes.from_lists([zeros((3, 2))], [zeros((3, 1))], [zeros(2)], terminal=[True])
    with pytest.raises(DataError, match=r"\(1, 1, 1, 2\) episodes"):
        Episodes.from_lists([zeros((3, 2))], [zeros((2, 1))], [zeros(2)], terminal=[True, True])
    with pytest.raises(DataError, match=r"one shape for all episodes"):
        Episodes.from_lists([zeros((2, 2)), zeros((2, 3))], [zeros((1, 1))] * 2, [zeros(1)] * 2, terminal=[True, True])


def test_from_transitions_keeps_both_ends_of_each():
    data = Episodes.from_transitions(
        [[1.0], [2.0]], [[0.1], [0.2]], [5.0, 6.0], next_obs=[[10.0], [20.0]], terminal=[1.0, 0.0]
    )
    assert data.obs.flatten().tolist() == [1, 10, 2, 20]
    assert data.lengths.tolist() == [1, 1]
    assert data.terminal.tolist() == [True, False]
    assert data.truncated.tolist() == [False, True]
    with pytest.raises(DataError, match="'next_obs' has shape"):
        Episodes.from_transitions([[1.0]], [[0.1]], [5.0], next_obs=[[1.0, 2.0]], terminal=[0.0])


def test_from_steps_keeps_the_last_episode_of_the_file():
    data = Episodes.from_steps(
        [[0.0], [1.0], [2.0], [3.0]],
        [[0.0]] * 4,
        [1.0, 2.0, 3.0, 4.0],
        terminal=[False, True, False, False],
        truncated=[False] * 4,
    )
    assert data.lengths.tolist() == [2, 2]
    assert data.obs.flatten().tolist() == [0, 1, 1, 2, 3, 3]
    assert data.truncated.tolist() == [False, False, False, True]
    assert not data.final_known.any()


def test_from_steps_uses_the_final_observations_that_are_known():
    data = Episodes.from_steps(
        [[0.0], [1.0], [2.0]],
        [[0.0]] * 3,
        [0.0] * 3,
        terminal=[True, False, False],
        truncated=[False, False, True],
        final=[[8.0], [9.0]],
        final_known=[True, False],
    )
    assert data.obs.flatten().tolist() == [0, 8, 1, 2, 2]
    assert data.final_known.tolist() == [True, False]


def test_concatenate_joins_in_order(record):
    one, two = record((3, 1), extras={"goal": torch.zeros(2, 2)}), record((2,), extras={"goal": torch.ones(1, 2)})
    both = concatenate([one, two])
    assert both.lengths.tolist() == [3, 1, 2]
    assert both.extras["goal"][:, 0].tolist() == [0, 0, 1]
    assert both.select([0, 1]).hash == one.hash
    assert both.select([2]).hash == two.hash


def test_concatenate_refuses_unlike_recordings(record):
    with pytest.raises(DataError, match="of one task"):
        concatenate([record((2,), obs=2), record((2,), obs=3)])
    with pytest.raises(DataError, match="at least"):
        concatenate([])


def test_ragged_and_interleave():
    assert ragged(torch.tensor([5, 0, 9]), torch.tensor([2, 3, 1])).tolist() == [5, 6, 0, 1, 2, 9]
    rows = interleave(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 30.0]), torch.tensor([2, 1]))
    assert rows.tolist() == [1, 2, 10, 3, 30]


def refusals(data, cases):
    for message, values in cases.items():
        with pytest.raises(DataError, match=message) as caught:
            dataclasses.replace(data, **values)
        assert "\n" not in str(caught.value)


def test_bad_entries_are_refused_in_one_line_that_names_them(record):
    data = record((3, 1, 4))
    nan, inf = data.obs.clone(), data.reward.clone()
    nan[7, 1], inf[2] = float("nan"), -float("inf")
    early = torch.zeros(8, dtype=torch.bool)
    early[1] = True
    cases = {
        r"'obs' has NaN entries \(first in row 7; 1 bad rows of 11\)": {"obs": nan},
        r"'reward' has infinite entries \(first in row 2": {"reward": inf},
        r"'lengths' has 0 steps for episode 1": {"lengths": torch.tensor([4, 0, 4])},
        r"'terminal' is true at step 1, which is not the last": {"terminal": early},
        r"'truncated' is true at step 1, which is not the last": {"truncated": early},
        r"neither 'terminal' nor 'truncated' is true at step 2": {"truncated": torch.zeros(8, dtype=torch.bool)},
        r"extra 'goal' has shape \(5, 2\)": {"extras": {"goal": torch.zeros(5, 2)}},
        r"'goal' has NaN entries": {"extras": {"goal": torch.full((3, 2), float("nan"))}},
        r"'obs' holds torch.float64, but torch.float32": {"obs": data.obs.double()},
        r"'obs' has shape \(10, 2\), but 11 rows": {"obs": data.obs[:-1]},
    }
    refusals(data, cases)


@pytest.mark.graph
def test_bad_shapes_are_refused_in_one_line_that_names_them(record):
    """Without the runtime shape checker, which would be quicker to complain."""
    data = record((3, 1, 4))
    cases = {
        r"'action' has shape \(7, 1\), but 8 rows": {"action": data.action[:-1]},
        r"'action' has shape \(8,\), but \(number of steps, size\)": {"action": data.action[:, 0]},
        r"'reward' has shape \(8, 1\), but \(8,\)": {"reward": data.reward[:, None]},
        r"'final_known' has shape \(2,\), but 3 rows": {"final_known": data.final_known[:2]},
        r"'lengths' has shape \(0,\)": {"lengths": torch.tensor([], dtype=torch.int64)},
    }
    refusals(data, cases)


def test_entries_too_large_for_float32_are_refused():
    with pytest.raises(DataError, match="'reward' has infinite entries"):
        Episodes.from_lists([[[0.0], [0.0]]], [[[0.0]]], [np.array([1e300])], terminal=[True])


def test_text_is_refused():
    with pytest.raises(DataError, match="numbers are expected"):
        Episodes.from_lists([[["a"], ["b"]]], [[[0.0]]], [[1.0]], terminal=[True])
