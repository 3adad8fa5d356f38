"""Minari's layout, written by minari itself and by us, read by both."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.formats import minari

package = pytest.importorskip("minari", reason="the package minari is not installed: pip install 'ornstein[minari]'")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def created_by_minari(name, *, goal=False, lengths=(3, 2)):
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    observation = spaces.Dict({"observation": box, "desired_goal": box, "achieved_goal": box}) if goal else box
    buffers = []
    for e, count in enumerate(lengths):
        rows = np.full((count + 1, 2), float(e), np.float32)
        rows[:, 0] += np.arange(count + 1)
        obs = {"observation": rows, "desired_goal": rows * 0 + 9 + e, "achieved_goal": rows} if goal else rows
        ends = np.arange(count) == count - 1
        buffers.append(
            EpisodeBuffer(
                id=e,
                observations=obs,
                actions=np.full((count, 1), 0.5, np.float32),
                rewards=list(np.arange(count, dtype=float)),
                terminations=list(ends & (e == 0)),
                truncations=list(ends & (e > 0)),
            )
        )
    return package.create_dataset_from_buffers(
        name,
        buffer=buffers,
        observation_space=observation,
        action_space=spaces.Box(-2.0, 2.0, (1,), np.float32),
        algorithm_name="by hand",
        code_permalink="none",
        author="none",
        author_email="none",
        description="none",
    )


@pytest.mark.filterwarnings("ignore")
def test_a_set_that_minari_wrote(root):
    created_by_minari("toy/plain-v0")
    for name in ("toy/plain-v0", root / "toy" / "plain-v0", root / "toy" / "plain-v0" / "data"):
        data = minari.read(name)
        assert data.lengths.tolist() == [3, 2]
        assert data.obs[:, 0].tolist() == [0, 1, 2, 3, 1, 2, 3]
        assert data.reward.tolist() == [0, 1, 2, 0, 1]
        assert data.terminal.tolist() == [False, False, True, False, False]
        assert data.truncated.tolist() == [False, False, False, False, True]
        assert data.final_known.all()
        assert data.spaces.action_high == (2.0,)


@pytest.mark.filterwarnings("ignore")
def test_goals_of_a_maze_set(root):
    created_by_minari("toy/maze-v0", goal=True)
    data = minari.read("toy/maze-v0")
    assert (data.spaces.obs, data.spaces.goal) == (2, 2)
    assert data.extras["goal"].tolist() == [[9, 9], [10, 10]]


@pytest.mark.filterwarnings("ignore")
def test_storage_that_only_minari_knows_is_read_through_it(root, same):
    created_by_minari("toy/plain-v0")
    folder = minari.locate("toy/plain-v0")
    assert folder is not None
    metadata = json.loads((folder / "metadata.json").read_text())
    same(minari._gather(minari._records_by_minari(folder), metadata), minari.read("toy/plain-v0"))


@pytest.mark.filterwarnings("ignore")
def test_minari_opens_what_we_write(root, record):
    data = record((3, 2), terminal=(0,), extras={"goal": torch.tensor([[1.0], [2.0]]), "step": torch.arange(5)})
    (root / "ours").mkdir()
    minari.write(data, root / "ours" / "set-v3")
    opened = package.load_dataset("ours/set-v3")
    assert (opened.total_episodes, opened.total_steps) == (2, 5)
    episode = opened[1]
    assert episode.observations["observation"][:, 0].tolist() == [400, 500, 600]
    assert episode.observations["desired_goal"].tolist() == [[2.0]] * 3
    assert episode.rewards.tolist() == [4, 5]
    assert episode.truncations.tolist() == [False, True]
    assert opened[0].terminations.tolist() == [False, False, True]
    assert opened.action_space.high.tolist() == [1.0]


def test_everything_comes_back_exactly(record, same, tmp_path):
    extras = {
        "goal": torch.randn(3, 2),
        "step": torch.arange(8),
        "row": torch.randn(11, 3),
        "seed": torch.arange(3),
    }
    data = dataclasses.replace(record((3, 1, 4), terminal=(1,), extras=extras), env="Toy-v0")
    minari.write(data, tmp_path / "set-v0")
    again = minari.read(tmp_path / "set-v0")
    same(again, data)
    assert again.env == "Toy-v0"


def test_a_moving_goal_stays_with_its_observations(record, same, tmp_path):
    data = record((2, 1), extras={"goal": torch.arange(5.0)[:, None]})
    minari.write(data, tmp_path / "set-v0")
    same(minari.read(tmp_path / "set-v0"), data)


def test_unknown_final_observations_are_refused(record, tmp_path):
    with pytest.raises(DataError, match=r"2 episodes end with an unknown observation.*without_unknown"):
        minari.write(record((2, 3, 2), known=(True, False, False)), tmp_path / "set-v0")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def broken(record, tmp_path):
    """A set of ours after a change to its first episode."""

    def make(change):
        minari.write(record((3, 1)), tmp_path / "set-v0")
        with h5py.File(tmp_path / "set-v0" / "data" / "main_data.hdf5", "a") as file:
            change(file)
        return tmp_path / "set-v0"

    return make


def put(name, values):
    def change(file):
        del file["episode_0"][name]
        file["episode_0"][name] = values

    return change


def test_bad_episodes_are_named(broken):
    nan = np.full((4, 2), np.nan)
    parts = {
        "'rewards' is missing in /episode_0": lambda file: file["episode_0"].pop("rewards"),
        r"'obs' has NaN entries \(first in row 0": put("observations", nan),
        r"'obs of episode 0' has shape \(6, 2\), but 4 rows": put("observations", np.zeros((6, 2))),
        r"'action of episode 0' has shape \(2, 1\), but 3 rows": put("actions", np.zeros((2, 1))),
        r"'terminations' of episode 0 is true at step 1": put("terminations", np.array([False, True, False])),
    }
    for message, change in parts.items():
        with pytest.raises(DataError, match=message) as caught:
            minari.read(broken(change))
        assert "\n" not in str(caught.value)
        assert "set-v0" in str(caught.value)


def test_observations_of_unknown_parts_are_refused(broken):
    def change(file):
        del file["episode_0"]["observations"]
        file["episode_0"]["observations/image"] = np.zeros((4, 2))

    with pytest.raises(DataError, match=r"observations of episode 0 are parts \['image'\]"):
        minari.read(broken(change))


def test_metadata_that_contradict_the_data_are_refused(broken):
    path = broken(lambda file: None)
    metadata = json.loads((path / "data" / "metadata.json").read_text())
    for key, value, message in (
        ("action_space", "{", r"'action_space' in metadata\.json is damaged"),
        ("env_spec", 3.5, r"'env_spec' in metadata\.json is damaged"),
        ("ornstein_extras", {"mood": "step"}, r"'infos/mood' is missing in episode 0"),
    ):
        (path / "data" / "metadata.json").write_text(json.dumps(metadata | {"ornstein_env": "", key: value}))
        with pytest.raises(DataError, match=message):
            minari.read(path)


def test_damaged_metadata_and_data_are_refused(broken, record, tmp_path):
    path = broken(lambda file: None)
    (path / "data" / "metadata.json").write_text("{")
    with pytest.raises(DataError, match=r"metadata\.json is damaged"):
        minari.read(path)
    minari.write(record((3, 1)), path)
    main = path / "data" / "main_data.hdf5"
    main.write_bytes(main.read_bytes()[:3000])
    with pytest.raises(DataError, match="truncated or damaged HDF5"):
        minari.read(path)
