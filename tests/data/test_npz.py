import dataclasses

import numpy as np
import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.formats import npz


def test_everything_comes_back_exactly(record, same, tmp_path):
    extras = {"goal": torch.randn(3, 2), "step": torch.arange(8), "row": torch.randn(11, 2, 3)}
    data = record((3, 1, 4), terminal=(1,), known=(True, False, True), extras=extras, repeated=True)
    data = dataclasses.replace(data, action_low=(-2.0,), action_high=(3.0,), env="Hopper-v5")
    npz.write(data, tmp_path / "a.npz")
    again = npz.read(tmp_path / "a.npz")
    same(again, data)
    assert again.env == "Hopper-v5"


def test_a_file_of_ones_own_needs_five_arrays(tmp_path):
    np.savez(
        tmp_path / "own.npz",
        observations=np.zeros((4, 2)),
        actions=np.zeros((4, 1)),
        rewards=np.ones(4),
        terminals=np.array([0, 1, 0, 0]),
        timeouts=np.array([0, 0, 0, 1]),
    )
    data = npz.read(tmp_path / "own.npz")
    assert data.lengths.tolist() == [2, 2]
    assert data.returns.tolist() == [2, 2]


def test_pickled_and_damaged_files_are_refused(record, tmp_path):
    np.savez(tmp_path / "pickled.npz", observations=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"pickled\.npz: truncated, damaged or pickled NPZ"):
        npz.read(tmp_path / "pickled.npz")
    npz.write(record(), tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.npz: truncated, damaged or pickled NPZ") as caught:
        npz.read(tmp_path / "cut.npz")
    assert "\n" not in str(caught.value)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="not a file of kind NPZ"):
        npz.read(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
        npz.read(tmp_path / "none.npz")


def test_a_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "own.npz", observations=np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"own\.npz: 'actions' is missing \(there are observations\)"):
        npz.read(tmp_path / "own.npz")
