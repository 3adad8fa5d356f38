import dataclasses
import time

import pytest
import torch

from ornstein.data.check import DataError
from ornstein.data.episodes import Episodes
from ornstein.data.returns import returns_to_go
from ornstein.data.windows import BLOCK, windows
from ornstein.types import Batches


def everything(data):
    return data.gather(torch.arange(len(data)))


def naive_returns(reward, lengths, discount):
    """The definition, backwards over the steps of each episode, in Python's floats."""
    out, end = [], 0
    for length in lengths:
        end += length
        total = 0.0
        back = []
        for r in reversed(reward[end - length : end]):
            total = r + discount * total
            back.append(total)
        out += reversed(back)
    return torch.tensor(out, dtype=torch.float64)


def test_returns_to_go_by_hand():
    """1 + 0.5 * (2 + 0.5 * 4) = 3; the second episode starts anew."""
    got = returns_to_go(torch.tensor([1.0, 2.0, 4.0, 8.0]), torch.tensor([3, 1]), 0.5)
    assert got.tolist() == [3, 4, 4, 8]
    assert got.dtype == torch.float64


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99, 0.997, 1.0])
def test_returns_to_go_agree_with_the_loop_on_ragged_episodes(discount):
    generator = torch.Generator().manual_seed(3)
    lengths = [1, 1000, 2, 3, 4, 5, 63, 64, 65, 1, 1, 127, 128, 129, 777]
    reward = torch.randn(sum(lengths), generator=generator) * 100
    got = returns_to_go(reward, torch.tensor(lengths), discount)
    torch.testing.assert_close(got, naive_returns(reward.tolist(), lengths, discount), rtol=1e-12, atol=1e-9)


def test_returns_to_go_stay_exact_where_powers_of_the_discount_vanish():
    """0.5^3000 is zero in float64: dividing cumulative sums by it would give NaN; here each return is just below 2."""
    got = returns_to_go(torch.ones(3000), torch.tensor([3000]), 0.5)
    torch.testing.assert_close(got[:2900], torch.full((2900,), 2.0, dtype=torch.float64), rtol=1e-15, atol=0)
    assert got[-1] == 1
    assert got[-2] == 1.5


def naive_window(episodes, e, t, horizon, stride, discount, penalty):
    begin, count = int(episodes.offsets[e]), int(episodes.lengths[e])
    reward = [float(r) for r in episodes.reward[begin : begin + count]]
    reward[-1] += penalty * float(episodes.terminal[begin + count - 1])
    rows = []
    for j in range(horizon):
        wanted = t + j * stride
        i = min(wanted, count - 1)
        inside = wanted < count
        rows.append((float(episodes.obs[begin + e + i, 0]), float(episodes.action[begin + i, 0]), inside * reward[i]))
    total = sum(discount**k * r for k, r in enumerate(reward[t:]))
    return rows, [float(t + j * stride < count) for j in range(horizon)], total


@pytest.mark.parametrize("penalty", [0.0, -100.0])
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("pad", ["last", "none"])
def test_all_windows_agree_with_the_definition(record, pad, stride, penalty):
    episodes = record((5, 1, 40, 7, 33, 2), terminal=(0, 2, 5))
    horizon, discount = 3, 0.9
    data = windows(episodes, horizon, discount=discount, stride=stride, pad=pad, termination_penalty=penalty)
    span = (horizon - 1) * stride + 1
    starts = [
        (e, t)
        for e, count in enumerate(episodes.lengths.tolist())
        for t in range(count if pad == "last" else max(count - span + 1, 0))
    ]
    batch = everything(data)
    assert len(data) == len(starts)
    for i, (e, t) in enumerate(starts):
        rows, mask, total = naive_window(episodes, e, t, horizon, stride, discount, penalty)
        got = torch.stack([batch.obs[i, :, 0], batch.action[i, :, 0], batch.reward[i]], 1)
        torch.testing.assert_close(got, torch.tensor(rows))
        assert batch.mask[i].tolist() == mask
        assert float(batch.returns[i]) == pytest.approx(total, rel=1e-5)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    shuffled = data.gather(order)
    for one, other in zip(batch, shuffled, strict=True):
        torch.testing.assert_close(one[order], other)


def test_a_padded_window_by_hand(record):
    """Two steps, horizon 4: the last step is repeated, masked, and pays nothing."""
    batch = windows(record((2, 3)), 4, discount=0.5).gather(torch.tensor([1, 2]))
    assert batch.obs[0, :, 0].tolist() == [100, 100, 100, 100]
    assert batch.action[0, :, 0].tolist() == pytest.approx([0.01] * 4)
    assert batch.reward[0].tolist() == [2, 0, 0, 0]
    assert batch.mask.tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]
    assert batch.obs[1, :, 0].tolist() == [300, 400, 500, 500]
    assert batch.returns.tolist() == [2, 3 + 0.5 * 4 + 0.25 * 5]


def test_returns_reach_beyond_the_window_to_the_end_of_the_episode(record):
    episodes = record((10,), reward=[0.0] * 9 + [1024.0])
    assert windows(episodes, 2, discount=0.5, pad="none").gather(torch.tensor([0])).returns.tolist() == [2]


def test_returns_do_not_depend_on_where_their_milestones_lie(record):
    """Episodes of all lengths around the block size, each at another place within the blocks."""
    lengths = tuple(range(1, 3 * BLOCK))
    generator = torch.Generator().manual_seed(0)
    reward = torch.randn(sum(lengths), generator=generator).tolist()
    batch = everything(windows(record(lengths, reward=reward), 1, discount=0.97))
    expected = naive_returns(reward, lengths, 0.97)
    torch.testing.assert_close(batch.returns.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_final_observation_is_in_no_window(record):
    for known in ((True, True), (False, False)):
        batch = everything(windows(record((2, 3), known=known), 4))
        assert not torch.isin(batch.obs[..., 0], torch.tensor([200.0, 600.0])).any()


def test_no_window_holds_rows_of_two_episodes(record):
    episodes = record((4, 9, 2, 6))
    batch = everything(windows(episodes, 5, stride=2))
    owner = torch.repeat_interleave(torch.arange(4), episodes.lengths + 1)[(batch.obs[..., 0] / 100).long()]
    assert (owner == owner[:, :1]).all()


def test_the_penalty_reaches_terminal_steps_only(record):
    batch = everything(windows(record((2, 2), terminal=(1,)), 1, discount=1.0, termination_penalty=-100.0))
    assert batch.reward.flatten().tolist() == [1, 2, 3, -96]
    assert batch.returns.tolist() == [3, 2, -93, -96]


def test_episodes_too_short_are_left_out_and_counted(record):
    data = windows(record((2, 5, 3, 9)), 4, pad="none")
    assert data.skipped == 2
    assert len(data) == 2 + 6
    assert everything(data).mask.all()
    assert windows(record((2, 5)), 4).skipped == 0


def test_no_window_at_all_names_the_episode_and_the_horizon(record):
    message = r"horizon 4 with stride 3 spans 10 steps, but the longest episode \(1\) has 9: use a shorter horizon"
    with pytest.raises(DataError, match=message):
        windows(record((2, 9)), 4, stride=3, pad="none")
    assert len(windows(record((2, 10)), 4, stride=3, pad="none")) == 1


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_discounts_at_the_ends_of_their_range(record, discount):
    batch = everything(windows(record((3,)), 1, discount=discount))
    assert batch.returns.tolist() == [1 + 5 * discount, 2 + 3 * discount, 3]


def test_wrong_arguments_are_refused(record):
    for wrong in ({"horizon": 0}, {"horizon": 2, "stride": 0}, {"horizon": 2, "discount": 2.0}):
        with pytest.raises(DataError, match="give at least 1"):
            windows(record((3,)), **wrong)
    with pytest.raises(DataError, match="would reward an end"):
        windows(record((3,)), 2, termination_penalty=0.5)


@pytest.mark.graph
def test_an_unknown_padding_is_refused(record):
    with pytest.raises(DataError, match="'zero' is unknown"):
        windows(record((3,)), 2, pad="zero")


def test_it_is_a_data_set_that_moves_as_a_whole(record):
    data = windows(record((3, 1)), 2)
    assert isinstance(data, Batches)
    assert data.horizon == 2
    moved = data.to("meta")
    assert {getattr(moved, f.name).device.type for f in dataclasses.fields(moved)} == {"meta"}


def large():
    """A million steps of hopper's sizes."""
    lengths = torch.full((2000,), 500)
    steps = int(lengths.sum())
    last = torch.zeros(steps, dtype=torch.bool).index_fill(0, lengths.cumsum(0) - 1, True)
    return Episodes(
        obs=torch.zeros(steps + 2000, 11),
        action=torch.zeros(steps, 3),
        reward=torch.ones(steps),
        terminal=last,
        truncated=torch.zeros_like(last),
        lengths=lengths,
        final_known=torch.ones(2000, dtype=torch.bool),
    )


def test_a_million_steps_take_no_more_memory_than_the_raw_arrays():
    """Returns-to-go of every step alone would take 6 % more."""
    episodes = large()
    raw = 4 * (episodes.obs.numel() + episodes.action.numel() + episodes.n_steps) + 2 * episodes.n_steps
    data = windows(episodes, 32, termination_penalty=-100.0)
    assert data.nbytes <= 1.05 * raw
    assert data.obs.data_ptr() == episodes.obs.data_ptr()
    assert data.reward.data_ptr() == episodes.reward.data_ptr()


@pytest.mark.graph
def test_a_batch_of_256_windows_takes_less_than_a_millisecond():
    """0.45 ms where it was measured; best of 50, and a wide berth for busy machines."""
    data = windows(large(), 32)
    index = torch.randint(len(data), (256,), generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(50):
        began = time.perf_counter()
        data.gather(index)
        times.append(time.perf_counter() - began)
    assert min(times) < 2e-3
