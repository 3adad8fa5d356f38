import dataclasses
import errno
import json
import os
import resource
import shutil

import h5py
import numpy as np
import pytest
import torch

from ornstein.data import cache, formats
from ornstein.data.atomic import replacing
from ornstein.data.check import DataError
from ornstein.data.open import open_dataset, save_dataset


@pytest.fixture(autouse=True)
def room(tmp_path, monkeypatch):
    """A cache of its own for each test."""
    monkeypatch.setenv("ORNSTEIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


NAMES = ["a.h5", "a.hdf5", "a.npz", "a-v0"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cached", [True, False])
def test_what_is_saved_opens_again(record, same, tmp_path, name, cached):
    data = record((3, 1, 4), terminal=(1,), extras={"goal": torch.randn(3, 2)})
    data = dataclasses.replace(data, env="Toy-v0", action_low=(-3.0,), action_high=(3.0,))
    save_dataset(data, tmp_path / name)
    for _ in range(2):
        again = open_dataset(tmp_path / name, cache=cached)
        same(again, data)
        assert again.env == "Toy-v0"


def test_the_format_is_told_by_the_content(record, same, tmp_path):
    save_dataset(record(), tmp_path / "a.npz")
    save_dataset(record(), tmp_path / "a.h5")
    (tmp_path / "a.npz").rename(tmp_path / "b.data")
    (tmp_path / "a.h5").rename(tmp_path / "c.npz")
    same(open_dataset(tmp_path / "b.data"), record())
    same(open_dataset(tmp_path / "c.npz"), record())


def test_a_minari_set_by_its_main_file(record, same, tmp_path):
    save_dataset(record(), tmp_path / "a-v0")
    same(open_dataset(tmp_path / "a-v0" / "data" / "main_data.hdf5"), record())


def test_a_minari_set_by_its_id(record, same, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    (tmp_path / "sets" / "toy").mkdir(parents=True)
    save_dataset(record(), tmp_path / "sets" / "toy" / "a-v0")
    same(open_dataset("toy/a-v0"), record())


def test_the_short_names_of_the_command_line(record, same, tmp_path):
    formats.write(record(), tmp_path / "a.h5")
    same(formats.read(str(tmp_path / "a.h5")), record())


def test_the_second_time_nothing_is_read_but_the_cache(record, same, tmp_path, monkeypatch, room):
    save_dataset(record(), tmp_path / "a.h5")
    open_dataset(tmp_path / "a.h5")
    assert len(list(room.iterdir())) == 1
    monkeypatch.setattr("ornstein.data.formats.d4rl.read", None)
    again = open_dataset(tmp_path / "a.h5")
    same(again, record())


def test_a_copy_of_the_file_shares_its_entry_only_under_its_name(record, tmp_path, room):
    save_dataset(record(), tmp_path / "a.h5")
    open_dataset(tmp_path / "a.h5")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "a.h5", tmp_path / "other" / "a.h5")
    open_dataset(tmp_path / "other" / "a.h5")
    assert len(list(room.iterdir())) == 1


def test_a_changed_file_or_option_has_an_entry_of_its_own(record, tmp_path, room):
    save_dataset(record((2, 2)), tmp_path / "a.h5")
    assert open_dataset(tmp_path / "a.h5").n_episodes == 2
    assert open_dataset(tmp_path / "a.h5", max_episode_steps=1).n_episodes == 4
    save_dataset(record((2, 2, 2)), tmp_path / "a.h5")
    assert open_dataset(tmp_path / "a.h5").n_episodes == 3
    assert len(list(room.iterdir())) == 3


def test_changing_an_opened_recording_leaves_cache_and_file_alone(record, same, tmp_path):
    save_dataset(record(), tmp_path / "a.h5")
    open_dataset(tmp_path / "a.h5")
    open_dataset(tmp_path / "a.h5").obs.add_(1)
    same(open_dataset(tmp_path / "a.h5"), record())


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit of the observations": lambda entry: flip(entry / "obs.npy"),
    "a bit of a flag": lambda entry: flip(entry / "final_known.npy"),
    "half an array": lambda entry: (entry / "reward.npy").write_bytes((entry / "reward.npy").read_bytes()[:100]),
    "an empty array": lambda entry: (entry / "action.npy").write_bytes(b""),
    "no array": lambda entry: (entry / "lengths.npy").unlink(),
    "no list": lambda entry: (entry / "entry.json").unlink(),
    "half a list": lambda entry: (entry / "entry.json").write_text("{"),
    "another list": lambda entry: (entry / "entry.json").write_text(json.dumps({"hash": "0"})),
    "another type": lambda entry: np.save(entry / "obs.npy", np.zeros((11, 2))),
    "other lengths": lambda entry: np.save(entry / "lengths.npy", np.array([1, 3, 4])),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_noticed_and_built_again(record, same, tmp_path, room, damage):
    whole = record(extras={"goal": torch.ones(3, 2)})
    save_dataset(whole, tmp_path / "a.h5")
    open_dataset(tmp_path / "a.h5")
    (entry,) = room.iterdir()
    DAMAGE[damage](entry)
    assert cache.load(entry) is None
    same(open_dataset(tmp_path / "a.h5"), whole)
    found = cache.load(entry)
    assert found is not None
    same(found, whole)


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("ORNSTEIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert cache.cache_folder() == tmp_path / "ornstein" / "data"
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert cache.cache_folder().parts[-4:] == ("Library", "Caches", "ornstein", "data")


def refused(name, message, kind=DataError):
    with pytest.raises(kind, match=message) as caught:
        open_dataset(name)
    assert "\n" not in str(caught.value)
    assert str(name) in str(caught.value)


def test_what_cannot_be_opened(tmp_path, record, room):
    refused(tmp_path / "none.h5", "no such file or folder", FileNotFoundError)
    refused(tmp_path / "none", "no such file or folder", FileNotFoundError)
    refused("nowhere", "no such file or folder.*`ornstein data list` shows the known sets", FileNotFoundError)
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "a folder without main_data.hdf5")
    (tmp_path / "empty.h5").touch()
    refused(tmp_path / "empty.h5", "an empty file")
    (tmp_path / "text.h5").write_text("not HDF5 at all")
    refused(tmp_path / "text.h5", "not a file of kind HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 1))
    refused(tmp_path / "other.h5", "'observations' is missing")
    with h5py.File(tmp_path / "alone.h5", "w") as file:
        file["episode_0/actions"] = np.zeros((3, 1))
    refused(tmp_path / "alone.h5", "give the set's folder")
    assert not room.exists()


def test_a_bad_entry_leaves_nothing_in_the_cache(record, tmp_path, room):
    with h5py.File(tmp_path / "nan.h5", "w") as file:
        file["observations"], file["actions"] = np.full((2, 1), np.nan), np.zeros((2, 1))
        file["rewards"], file["terminals"], file["timeouts"] = np.zeros(2), np.zeros(2), np.ones(2)
    refused(tmp_path / "nan.h5", "'observations' has NaN entries")
    assert not room.exists()


def test_a_set_that_cannot_be_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))

    class Package:
        @staticmethod
        def download_dataset(name):
            raise ValueError("no network\nat all")

    monkeypatch.setattr("ornstein.data.formats.minari._minari", Package)
    refused("toy/missing-v0", r"can be downloaded \(no network\)", FileNotFoundError)


def test_an_unknown_suffix_is_refused(record, tmp_path):
    with pytest.raises(DataError, match=r"'\.csv' is no known format: use \.h5, \.hdf5, \.npz"):
        save_dataset(record(), tmp_path / "a.csv")


def test_a_missing_folder_is_refused(record, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: create it first"):
        save_dataset(record(), tmp_path / "none" / "a.h5")


@pytest.mark.parametrize("name", NAMES)
def test_saving_again_replaces_what_was_there(record, same, tmp_path, name):
    save_dataset(record((2,)), tmp_path / name)
    save_dataset(record((3, 3)), tmp_path / name)
    same(open_dataset(tmp_path / name), record((3, 3)))
    assert {entry.name for entry in tmp_path.iterdir()} == {name, "cache"}


@pytest.fixture
def full_disk():
    """Files cannot grow beyond 20 kB: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk_leaves_what_was_there_and_no_half_file(record, same, tmp_path, full_disk, name, before):
    large = record((20,) * 400, obs=3, reward=torch.randn(8000).tolist())
    if before:
        save_dataset(record(), tmp_path / name)
    full_disk()
    with pytest.raises(OSError, match=rf"{name}: could not be written .*nothing was left behind") as caught:
        save_dataset(large, tmp_path / name)
    assert caught.value.errno == errno.EFBIG
    assert [entry.name for entry in tmp_path.iterdir()] == ([name] if before else [])
    if before:
        same(open_dataset(tmp_path / name), record())


def test_a_full_disk_under_the_cache_is_told_with_the_way_out(record, same, tmp_path, full_disk, room):
    large = record((20,) * 400, obs=3, reward=torch.randn(8000).tolist())
    save_dataset(large, tmp_path / "a.h5")
    full_disk()
    with pytest.raises(OSError, match="this was the cache: set ORNSTEIN_CACHE"):
        open_dataset(tmp_path / "a.h5")
    assert list(room.iterdir()) == []
    same(open_dataset(tmp_path / "a.h5", cache=False), large)


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def half(place):
        place.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a.txt") as place:
        half(place)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()

    def fails(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", fails)
    with pytest.raises(OSError, match="No space left"), replacing(tmp_path / "a", folder=True) as place:
        (place / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_another_process_may_have_been_quicker(record, same, room, monkeypatch):
    """Two processes build one entry; the second cannot put its own in place and takes the first one's."""
    entry = room / "entry"
    cache.store(record(), entry)

    def fails(self, target):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr("pathlib.Path.rename", fails)
    cache.store(record(), entry)
    found = cache.load(entry)
    assert found is not None
    same(found, record())
