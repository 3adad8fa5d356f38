import dataclasses
import time

import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.transitions import transitions
from ornstein.types import Batches


def everything(data):
    return data.gather(torch.arange(len(data)))


def naive(episodes, discount, n):
    """The definition, step by step: (obs, action, reward, next_obs, terminal, discount) of every usable step."""
    rows = []
    for e in range(episodes.n_episodes):
        begin, count = int(episodes.offsets[e]), int(episodes.lengths[e])
        ended = bool(episodes.terminal[begin + count - 1])
        reach = count if ended or episodes.final_known[e] else count - 1
        for t in range(reach):
            taken = min(n, reach - t)
            total = sum(discount**k * float(episodes.reward[begin + t + k]) for k in range(taken))
            rows.append(
                (
                    episodes.obs[begin + e + t, 0].item(),
                    episodes.action[begin + t, 0].item(),
                    total,
                    episodes.obs[begin + e + t + taken, 0].item(),
                    float(ended and t + taken == count),
                    discount**taken,
                )
            )
    return torch.tensor(rows)


def flat(batch):
    columns = [batch.obs[:, 0], batch.action[:, 0], batch.reward, batch.next_obs[:, 0], batch.terminal, batch.discount]
    return torch.stack(columns, 1)


def test_one_step_by_hand(record):
    data = transitions(record((2, 1), terminal=(1,)), discount=0.9)
    assert len(data) == 3
    batch = everything(data)
    assert batch.obs[:, 0].tolist() == [0, 100, 300]
    assert batch.next_obs[:, 0].tolist() == [100, 200, 400]
    assert batch.reward.tolist() == [1, 2, 3]
    assert batch.terminal.tolist() == [0, 0, 1]
    assert batch.discount.tolist() == pytest.approx([0.9] * 3)


def test_three_steps_by_hand(record):
    """1 + 0.5 * 2 + 0.25 * 3 = 2.75, bootstrapped with 0.5^3 from the fourth observation."""
    batch = everything(transitions(record((4,)), discount=0.5, n=3))
    assert batch.reward.tolist() == [2.75, 2 + 1.5 + 1, 3 + 2, 4]
    assert batch.next_obs[:, 0].tolist() == [300, 400, 400, 400]
    assert batch.discount.tolist() == [0.125, 0.125, 0.25, 0.5]
    assert batch.terminal.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("known", [(True,) * 5, (True, False, False, False, True), (False,) * 5])
def test_any_n_agrees_with_the_definition(record, n, known):
    episodes = record((5, 1, 2, 7, 1), terminal=(1, 3), known=known)
    data = transitions(episodes, discount=0.7, n=n)
    torch.testing.assert_close(flat(everything(data)), naive(episodes, 0.7, n))
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(flat(data.gather(order)), naive(episodes, 0.7, n)[order])


@pytest.mark.parametrize("n", [1, 4])
def test_nothing_crosses_an_end(record, n):
    """A reward of the next episode never enters, and the next observation is of the same episode."""
    episodes = record((3, 3), terminal=(0,), reward=[0.0, 0.0, 0.0, 1e6, 1e6, 1e6])
    batch = everything(transitions(episodes, n=n))
    assert batch.reward[:3].abs().max() == 0
    assert batch.next_obs[:3, 0].max() <= 300
    assert batch.terminal.tolist()[2] == 1
    assert not batch.terminal[3:].any()


def test_truncation_bootstraps_and_terminal_does_not(record):
    batch = everything(transitions(record((2, 2), terminal=(0,)), n=2))
    keep = batch.discount * (1 - batch.terminal)
    assert keep.tolist() == pytest.approx([0, 0, 0.99**2, 0.99])


def test_an_unknown_final_observation_is_never_bootstrapped_from(record):
    """Row 300 is the placeholder of the truncated first episode; row 700 of the terminal second one."""
    episodes = record((3, 3), terminal=(1,), known=(False, False))
    for n in (1, 2, 5):
        batch = everything(transitions(episodes, n=n))
        bootstrapped = batch.next_obs[batch.terminal == 0, 0]
        assert not torch.isin(bootstrapped, torch.tensor([300.0, 700.0])).any()
        assert 200.0 not in batch.obs[:, 0]
        assert batch.obs[-1, 0] == 600
        assert batch.terminal[-1] == 1


def test_learners_of_dynamics_see_no_placeholder_at_all(record):
    episodes = record((3, 3), terminal=(1,), known=(False, False))
    batch = everything(transitions(episodes, drop_unknown_terminal=True))
    assert batch.next_obs[:, 0].tolist() == [100, 200, 500, 600]
    assert not batch.terminal.any()


def test_index_outside_is_an_error(record):
    data = transitions(record((3, 1)))
    with pytest.raises(IndexError):
        data.gather(torch.tensor([4]))


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_discounts_at_the_ends_of_their_range(record, discount):
    batch = everything(transitions(record((3,)), discount=discount, n=2))
    assert batch.reward.tolist() == [1 + 2 * discount, 2 + 3 * discount, 3]
    assert batch.discount.tolist() == [discount**2, discount**2, discount]


def test_wrong_arguments_are_refused(record):
    for wrong in ({"n": 0}, {"discount": 1.5}, {"discount": -0.1}):
        with pytest.raises(DataError, match="at least one step and a discount in"):
            transitions(record((3,)), **wrong)
    with pytest.raises(DataError, match="no step has a known next observation"):
        transitions(record((1, 1), known=(False, False)))


def test_it_is_a_data_set_that_moves_as_a_whole(record):
    data = transitions(record((3, 1)), n=2)
    assert isinstance(data, Batches)
    moved = data.to("meta")
    assert {getattr(moved, f.name).device.type for f in dataclasses.fields(moved)} == {"meta"}


def large():
    """A million steps of hopper's sizes."""
    from ornstein.data.episodes import Episodes

    lengths = torch.full((2000,), 500)
    steps = int(lengths.sum())
    last = torch.zeros(steps, dtype=torch.bool).index_fill(0, lengths.cumsum(0) - 1, True)
    return Episodes(
        obs=torch.zeros(steps + 2000, 11),
        action=torch.zeros(steps, 3),
        reward=torch.zeros(steps),
        terminal=last,
        truncated=torch.zeros_like(last),
        lengths=lengths,
        final_known=torch.ones(2000, dtype=torch.bool),
    )


def raw_bytes(episodes):
    """Observations, actions and rewards in float32, and one byte per step for each of the two flags."""
    return 4 * (episodes.obs.numel() + episodes.action.numel() + episodes.reward.numel()) + 2 * episodes.n_steps


def test_a_million_steps_take_no_more_memory_than_the_raw_arrays():
    episodes = large()
    for n in (1, 5):
        data = transitions(episodes, n=n)
        assert data.nbytes <= 1.05 * raw_bytes(episodes)
        assert data.obs.data_ptr() == episodes.obs.data_ptr()


@pytest.mark.graph
def test_a_batch_of_256_takes_a_fraction_of_a_millisecond():
    """0.08 ms where it was measured; best of 50, and a wide berth for busy machines."""
    data = transitions(large())
    index = torch.randint(len(data), (256,), generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(50):
        began = time.perf_counter()
        data.gather(index)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.5e-3
