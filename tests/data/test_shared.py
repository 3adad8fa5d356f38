"""The shared recordings of real simulators, where they are at hand: what their own README says of them."""

import h5py
import numpy as np
import pytest
import torch

from ornstein.data.formats import d4rl
from ornstein.data.open import open_dataset, save_dataset
from ornstein.data.transitions import transitions
from ornstein.data.windows import windows

TABLE = {
    "hopper-medium": (50_000, 124, 1483, 693, 0.92),
    "hopper-expert": (50_000, 60, 3143, 804, 0.38),
    "hopper-replay": (60_000, 965, 146, 395, 0.99),
    "halfcheetah-medium": (50_000, 50, 5507, 1025, 0),
    "halfcheetah-expert": (50_000, 50, 11454, 242, 0),
    "halfcheetah-replay": (62_000, 62, 2800, 1499, 0),
    "walker2d-medium": (50_000, 64, 2572, 789, 0.69),
    "walker2d-expert": (50_000, 65, 4050, 1441, 0.54),
    "walker2d-replay": (60_000, 922, 94, 320, 0.99),
}
"""Steps, episodes, mean and deviation of returns without the last episode, share of falls."""


@pytest.mark.parametrize("name", TABLE)
def test_the_table_of_the_readme(shared, name):
    data = d4rl.read(shared(f"mujoco-offline/{name}.h5"))
    steps, episodes, mean, std, falls = TABLE[name]
    assert (data.n_steps, data.n_episodes) == (steps, episodes)
    whole = data.returns[:-1]
    assert float(whole.mean()) == pytest.approx(mean, abs=0.6)
    assert float(whole.std(correction=0)) == pytest.approx(std, rel=0.02)
    assert data.describe()["terminal_share"] == pytest.approx(falls, abs=0.01)
    assert data.final_known.all()
    assert data.spaces.action_high == (1.0,) * data.spaces.act
    assert data.env.startswith({"ho": "Hopper", "ha": "HalfCheetah", "wa": "Walker2d"}[name[:2]])


def test_transitions_and_windows_are_the_rows_of_the_file(shared):
    path = shared("mujoco-offline/hopper-replay.h5")
    data = d4rl.read(path)
    with h5py.File(path) as file:
        obs, action = file["observations"][:], file["actions"][:]
        final, lengths = file["episodes/final_observations"][:], file["episodes/lengths"][:]
        returns = file["episodes/returns"][:]
    after = np.concatenate([obs[1:], obs[:1]])
    after[lengths.cumsum() - 1] = final
    batch = transitions(data).gather(torch.arange(data.n_steps))
    assert np.array_equal(batch.obs.numpy(), obs)
    assert np.array_equal(batch.action.numpy(), action)
    assert np.array_equal(batch.next_obs.numpy(), after)
    assert int(batch.terminal.sum()) == 955
    np.testing.assert_allclose(data.returns, returns, rtol=1e-6)
    first = windows(data, 1, discount=1.0).gather(data.offsets)
    np.testing.assert_allclose(first.returns, returns, rtol=1e-4, atol=1e-3)


def test_a_real_file_goes_through_every_format(shared, same, tmp_path, monkeypatch):
    monkeypatch.setenv("ORNSTEIN_CACHE", str(tmp_path / "cache"))
    data = open_dataset(shared("mujoco-offline/walker2d-replay.h5")).select(range(50))
    for name in ("a.h5", "a.npz", "a-v0"):
        save_dataset(data, tmp_path / name)
        same(open_dataset(tmp_path / name), data)


@pytest.mark.parametrize(
    ("name", "episodes", "steps"),
    [("adroit-door-human/door-human", 25, 6729), ("adroit-expert/pen-expert", 60, 12_000)],
)
def test_adroit_files(shared, name, episodes, steps):
    data = d4rl.read(shared(f"{name}.h5"))
    assert (data.n_episodes, data.n_steps) == (episodes, steps)


def test_actions_beyond_the_unit_box_widen_the_bounds(shared):
    """Human demonstrations of the door reach 1.37."""
    data = d4rl.read(shared("adroit-door-human/door-human.h5"))
    assert max(data.spaces.action_high) == pytest.approx(1.366, abs=1e-3)
