"""D4RL's layout, on files as others write them."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes
from ornstein.data.formats import d4rl
from ornstein.data.transitions import transitions


@pytest.fixture
def d4rl_file(tmp_path):
    """Writes a file in D4RL's layout: eight steps, episodes of 3, 2 (terminal) and 3 (the recording stops)."""

    def make(drop=(), **changes):
        arrays = {
            "observations": np.arange(8, dtype=np.float32)[:, None] + np.array([[0.0, 0.5]], np.float32),
            "actions": np.linspace(-1, 1, 8, dtype=np.float32)[:, None],
            "rewards": np.arange(1, 9, dtype=np.float32),
            "terminals": np.isin(np.arange(8), [4]),
            "timeouts": np.isin(np.arange(8), [2]),
        } | changes
        path = tmp_path / "set.hdf5"
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                if name not in drop:
                    file[name] = values
        return path

    return make


def test_a_plain_d4rl_file(d4rl_file):
    data = d4rl.read(d4rl_file())
    assert data.lengths.tolist() == [3, 2, 3]
    assert data.terminal.nonzero().flatten().tolist() == [4]
    assert data.truncated.nonzero().flatten().tolist() == [2, 7]
    assert data.obs[:, 0].tolist() == [0, 1, 2, 2, 3, 4, 4, 5, 6, 7, 7]
    assert not data.final_known.any()
    assert data.reward.tolist() == list(range(1, 9))


def test_its_transitions_drop_the_steps_that_ran_into_the_time_limit(d4rl_file):
    """As D4RL's qlearning_dataset does; the terminal step stays, and no step leads into another episode."""
    data = transitions(d4rl.read(d4rl_file()))
    batch = data.gather(torch.arange(len(data)))
    assert batch.obs[:, 0].tolist() == [0, 1, 3, 4, 5, 6]
    assert batch.next_obs[:, 0].tolist() == [1, 2, 4, 4, 6, 7]
    assert batch.terminal.tolist() == [0, 0, 0, 1, 0, 0]


def test_float_flags_and_float64_entries_as_old_files_have_them(d4rl_file):
    path = d4rl_file(
        terminals=np.isin(np.arange(8), [4]).astype(np.float32),
        timeouts=np.isin(np.arange(8), [2]).astype(np.uint8),
        observations=np.zeros((8, 2)),
    )
    data = d4rl.read(path)
    assert data.lengths.tolist() == [3, 2, 3]
    assert data.obs.dtype == torch.float32


def test_a_file_without_timeouts_needs_the_time_limit(d4rl_file):
    path = d4rl_file(drop=["timeouts"])
    with pytest.raises(DataError, match=r"'timeouts' is missing.*give max_episode_steps"):
        d4rl.read(path)
    data = d4rl.read(path, max_episode_steps=2)
    assert data.lengths.tolist() == [2, 2, 1, 2, 1]
    assert data.terminal.nonzero().flatten().tolist() == [4]
    assert data.truncated.nonzero().flatten().tolist() == [1, 3, 6, 7]
    with pytest.raises(DataError, match="max_episode_steps = 0"):
        d4rl.read(path, max_episode_steps=0)


def test_the_time_limit_counts_from_the_last_end(d4rl_file):
    """A terminal step at the limit is no truncation, and the count starts anew after it."""
    path = d4rl_file(drop=["timeouts"], terminals=np.isin(np.arange(8), [1, 4]))
    data = d4rl.read(path, max_episode_steps=3)
    assert data.lengths.tolist() == [2, 3, 3]
    assert data.truncated.nonzero().flatten().tolist() == [7]


def test_next_observations_tell_the_last_one(d4rl_file):
    after = np.arange(1, 9, dtype=np.float32)[:, None] + np.array([[0.0, 0.5]], np.float32)
    after[[2, 4, 7], 0] = [30, 50, 80]
    data = d4rl.read(d4rl_file(next_observations=after))
    assert data.final_known.all()
    assert data.obs[:, 0].tolist() == [0, 1, 2, 30, 3, 4, 50, 5, 6, 7, 80]


def test_an_episode_is_cut_where_its_next_observation_is_not_the_next_row(d4rl_file):
    after = np.arange(1, 9, dtype=np.float32)[:, None] + np.array([[0.0, 0.5]], np.float32)
    after[0] = 99
    data = d4rl.read(d4rl_file(next_observations=after))
    assert data.lengths.tolist() == [1, 2, 2, 3]
    assert data.obs[1, 0] == 99
    assert data.truncated[0]
    assert not data.terminal[0]


def test_goals_and_other_infos(d4rl_file):
    goal, qpos = np.ones((8, 2)), np.zeros((8, 3))
    path = d4rl_file(**{"infos/goal": goal, "infos/qpos": qpos})
    assert set(d4rl.read(path).extras) == {"goal"}
    assert d4rl.read(path).spaces.goal == 2
    assert set(d4rl.read(path, infos=["qpos"]).extras) == {"goal", "qpos"}
    with pytest.raises(DataError, match=r"'infos/qvel' is missing"):
        d4rl.read(path, infos=["qvel"])


def test_the_group_episodes_of_the_shared_sets(d4rl_file):
    told = {
        "episodes/lengths": np.array([3, 2, 3], np.int32),
        "episodes/final_observations": np.full((3, 2), 7.0, np.float32),
        "episodes/policy_id": np.array([5, 6, 7], np.int16),
        "episodes/returns": np.zeros(3),
        "episodes/names": np.array([b"a", b"b", b"c"]),
    }
    data = d4rl.read(d4rl_file(**told))
    assert data.final_known.all()
    assert data.obs[[3, 6, 10], 0].tolist() == [7, 7, 7]
    assert set(data.extras) == {"policy_id"}
    assert data.extras["policy_id"].tolist() == [5, 6, 7]
    alone = d4rl.read(d4rl_file(drop=["timeouts"], **told))
    assert alone.hash == data.hash


def test_everything_comes_back_exactly(record, same, tmp_path):
    extras = {
        "goal": torch.randn(3, 2),
        "step": torch.arange(8),
        "row": torch.randn(11, 2, 3),
        "seed": torch.tensor([3, 1, 2]),
    }
    for known in ((True, True, True), (True, False, True)):
        data = record((3, 1, 4), terminal=(1,), known=known, extras=extras, repeated=True)
        d4rl.write(data, tmp_path / "a.h5")
        same(d4rl.read(tmp_path / "a.h5"), data)


def test_bounds_and_environment_come_back(record, tmp_path):
    data = dataclasses.replace(record(), action_low=(-2.0,), action_high=(3.0,), env="Hopper-v5")
    d4rl.write(data, tmp_path / "a.h5")
    again = d4rl.read(tmp_path / "a.h5")
    assert again.env == "Hopper-v5"
    assert (again.action_low, again.action_high) == ((-2.0,), (3.0,))


def test_the_environment_of_the_shared_sets(d4rl_file):
    path = d4rl_file()
    with h5py.File(path, "a") as file:
        file.attrs["metadata"] = json.dumps({"env_id": "Walker2d-v5"})
    assert d4rl.read(path).env == "Walker2d-v5"


def test_unconnected_transitions_come_back_exactly(same, tmp_path):
    """What a synthesizer writes: each row with its own next observation."""
    generator = torch.Generator().manual_seed(0)
    obs, after = torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator)
    data = Episodes.from_transitions(
        obs, torch.rand(50, 2), torch.randn(50), next_obs=after, terminal=torch.rand(50, generator=generator) < 0.2
    )
    d4rl.write(data, tmp_path / "a.h5")
    again = d4rl.read(tmp_path / "a.h5")
    same(again, data)
    batch = transitions(again).gather(torch.arange(50))
    assert torch.equal(batch.obs, obs)
    assert torch.equal(batch.next_obs, after)


def test_others_find_what_they_look_for_in_our_files(record, tmp_path):
    data = record((2, 1), terminal=(1,))
    d4rl.write(data, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        names = {"observations", "actions", "rewards", "terminals", "timeouts", "next_observations"}
        assert names <= set(file)
        assert file["observations"][:, 0].tolist() == [0, 100, 300]
        assert file["next_observations"][:, 0].tolist() == [100, 200, 400]
        assert file["terminals"][:].tolist() == [False, False, True]
        assert file["timeouts"][:].tolist() == [False, True, False]
    d4rl.write(record((2, 1), known=(True, False)), tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5") as file:
        assert "next_observations" not in file


def test_a_damaged_list_of_extras(record, tmp_path):
    d4rl.write(record(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["extras"] = "["
    refused(tmp_path / "a.h5", "attribute 'extras' is damaged")


def refused(path, message, kind=DataError):
    with pytest.raises(kind, match=message) as caught:
        d4rl.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_not_what_they_seem(tmp_path, d4rl_file):
    refused(tmp_path / "none.h5", "no such file", FileNotFoundError)
    empty = tmp_path / "empty.h5"
    empty.touch()
    refused(empty, "an empty file, but HDF5 is expected")
    text = tmp_path / "text.h5"
    text.write_text("observations")
    refused(text, "not a file of kind HDF5")
    refused(tmp_path, "a folder, but a file of kind HDF5")
    whole = d4rl_file().read_bytes()
    cut = tmp_path / "cut.h5"
    for share in (0.01, 0.5, 0.99):
        cut.write_bytes(whole[: int(share * len(whole))])
        refused(cut, "truncated or damaged HDF5 file")


def test_bad_arrays_are_named(d4rl_file):
    nan = np.zeros((8, 2), np.float32)
    nan[5, 1] = np.nan
    infinite = np.arange(8, dtype=np.float32)
    infinite[3] = np.inf
    cases = {
        r"'observations' has NaN entries \(first in row 5": {"observations": nan},
        r"'rewards' has infinite entries \(first in row 3": {"rewards": infinite},
        r"'terminals' has NaN entries": {"terminals": np.full(8, np.nan)},
        r"'actions' has shape \(7, 1\), but 8 rows": {"actions": np.zeros((7, 1))},
        r"'actions' has shape \(8,\), but \(number of observations, size\)": {"actions": np.zeros(8)},
        r"'observations' has shape \(8, 3, 3\)": {"observations": np.zeros((8, 3, 3))},
        r"'observations' has shape \(0, 2\), but at least one step": {"observations": np.zeros((0, 2))},
        r"'observations' holds \|S1, but numbers": {"observations": np.array([[b"a"]] * 8)},
        r"'rewards' has shape \(8, 1\), but \(8,\)": {"rewards": np.zeros((8, 1))},
        r"'timeouts' has shape \(9,\), but 8 rows": {"timeouts": np.zeros(9, bool)},
        r"'next_observations' has shape \(8, 3\)": {"next_observations": np.zeros((8, 3))},
        r"'infos/goal' has shape \(5, 2\), but 8 rows": {"infos/goal": np.zeros((5, 2))},
        r"'episodes/lengths' tells of 2 episodes with 8 steps": {"episodes/lengths": np.array([4, 4])},
        r"'episodes/lengths' tells of 1 episodes with 7 steps": {"episodes/lengths": np.array([7])},
        r"'episodes/final_observations' has shape \(2, 2\), but \(3, 2\)": {
            "episodes/final_observations": np.zeros((2, 2))
        },
    }
    for message, changes in cases.items():
        refused(d4rl_file(**changes), message)


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "terminals"])
def test_missing_arrays_are_named_with_those_that_are_there(d4rl_file, name):
    refused(d4rl_file(drop=[name]), rf"'{name}' is missing \(there are .*timeouts\): add it")


def test_a_group_in_the_place_of_an_array(d4rl_file):
    refused(d4rl_file(drop=["rewards"], **{"rewards/a": np.zeros(8)}), "'rewards'.* an array is expected")
