"""Fitted-Q evaluation against the closed form of a small decision process."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ornstein.bench.estimate import actions, fitted_q
from ornstein.data.open import open_dataset
from ornstein.types import Draw

STATES, DISCOUNT = 4, 0.8
REWARD = np.array([1.0, -0.5, 0.0, 3.0])


class Walker:
    """Steps on with a probability, else stays: an action of +1 or -1."""

    def __init__(self, on: float) -> None:
        self.on, self.noise = on, {"coin": Draw("uniform")}

    def start(self, n_envs):
        return ()

    def act(self, obs, carry, noise):
        return torch.where(noise["coin"] < self.on, 1.0, -1.0)[:, None], carry


def outcome(state: int, action: float) -> tuple[float, int, bool]:
    """Reward, next state, and whether the episode ends: beyond the last state it does."""
    on = action > 0
    return REWARD[state] + 0.5 * action, min(state + on, STATES - 1), bool(on and state == STATES - 1)


def values(on: float) -> np.ndarray:
    """V = r + discount P V, solved."""
    reward, matrix = np.zeros(STATES), np.zeros((STATES, STATES))
    for state in range(STATES):
        for action, chance in ((1.0, on), (-1.0, 1 - on)):
            r, after, ends = outcome(state, action)
            reward[state] += chance * r
            matrix[state, after] += 0.0 if ends else chance
    return np.linalg.solve(np.eye(STATES) - DISCOUNT * matrix, reward)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    source, rows = np.random.default_rng(0), []
    for episode in range(150):
        state = episode % 3
        for step in range(8):
            action = float(source.choice([-1.0, 1.0]))
            r, after, ends = outcome(state, action)
            rows.append((np.eye(STATES)[state], [action], r, ends, step == 7 and not ends))
            state = after
            if ends:
                break
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    file = tmp_path_factory.mktemp("data") / "walk.npz"
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    floats = [c.astype(np.float32) for c in columns[:3]]
    np.savez(file, **dict(zip(names, [*floats, *columns[3:]], strict=True)))
    return open_dataset(file, cache=False)


@pytest.mark.parametrize("on", [0.0, 0.5, 1.0])
def test_it_finds_the_value_of_a_policy_that_never_acted(recorded, on):
    found = fitted_q(Walker(on), recorded, steps=1000, discount=DISCOUNT, samples=4, width=32, batch_size=64)
    first = recorded.obs[recorded.rows].argmax(1).numpy()
    assert found == pytest.approx(values(on)[first].mean(), rel=0.05)


def test_fewer_steps_of_the_data_are_acted_on_if_asked(recorded):
    seen = []

    class Counting(Walker):
        def act(self, obs, carry, noise):
            seen.append(len(obs))
            return super().act(obs, carry, noise)

    assert fitted_q(Counting(0.5), recorded, steps=1, most=100) is not None
    assert sum(seen) == 100 + recorded.n_episodes


def test_planners_have_no_value_by_single_observations(recorded):
    assert fitted_q(SimpleNamespace(plan=None), recorded, steps=1) is None


def test_actions_are_drawn_anew_for_every_copy_and_the_same_for_the_same_seed():
    obs = torch.zeros(100, STATES)
    drawn = actions(Walker(0.5), obs, 3, seed=0)
    assert drawn.shape == (100, 3, 1)
    assert 0.35 < float((drawn > 0).float().mean()) < 0.65
    assert not torch.equal(drawn[:, 0], drawn[:, 1])
    assert torch.equal(drawn, actions(Walker(0.5), obs, 3, seed=0))
    assert not torch.equal(drawn, actions(Walker(0.5), obs, 3, seed=1))
