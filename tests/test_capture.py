"""Captured updates against eager ones, with graphs that are played on the CPU (see tape.py)."""

import math

import pytest
import torch

import tape
from ornstein.noise import Streams
from ornstein.types import Adam, Descend
from ornstein.update import Captured, Together, Update, gather
from toys import Rows, Table, distance, learners, weights

ADAM = Adam(1e-2, clip=0.5, weight_decay=0.01, schedule="cosine", warmup=3)
NAMES = ("first", "second")


def draws(streams: Streams, step: int, update: Update, rows: int = 8):
    due = {p.name: p.noise for p in update.active(step) if isinstance(p, Descend)}
    return streams.indices(256, rows), streams.noises(due, rows)


def collated(index, noises):
    if len(index) == 1:
        return index[0], noises[0]
    return torch.stack(index), {
        name: {entry: torch.stack([n[name][entry] for n in noises]) for entry in noises[0][name]} for name in noises[0]
    }


@pytest.mark.parametrize("seeds", [1, 3])
def test_replays_equal_eager_updates(seeds):
    """Over every variant: with and without the delayed phase, before and after the average begins."""
    recorded, eager = learners(seeds, adam=ADAM), learners(seeds, adam=ADAM)
    graphs, plain = Update(recorded, steps=20, mode="graphs"), Update(eager, steps=20)
    captured = Captured(graphs, Table(), recorder=tape.record)
    streams = Streams(range(seeds), "x", NAMES)
    for step in range(12):
        index, noises = collated(*draws(streams, step, plain))
        ours = {name: reading.values.clone() for name, reading in captured(step, index, noises).items()}
        theirs = plain(step, gather(Table(), index), noises)
        for name, reading in theirs.items():
            assert torch.allclose(ours[name], reading.values, atol=1e-5), (step, name)
    assert len(captured.variants) == 3
    for update in (graphs, plain):
        update.write_back()
    assert all(distance(weights(a), weights(b)) < 1e-5 for a, b in zip(recorded, eager, strict=True))
    assert graphs.descents["first"].count.item() == 12
    assert graphs.descents["second"].count.item() == 6


def test_recording_leaves_no_trace():
    """Warm-up and recording change weights, moments, averages and clocks, and all of it is put back."""
    learner = learners(1, adam=ADAM)[0]
    update = Update([learner], steps=20, mode="graphs")
    captured = Captured(update, Table(), recorder=lambda work, device: (lambda: None, work()))
    before = [tensor.clone() for tensor in update.tensors()]
    index, noises = collated(*draws(Streams([0], "x", NAMES), 0, update))
    captured(0, index, noises)
    assert all(torch.equal(a, b) for a, b in zip(before, update.tensors(), strict=True))


def test_every_tensor_that_a_step_changes_is_known():
    """What `tensors` leaves out would not be put back: no tensor reachable from the update may change beside them."""
    update = Update(learners(2, adam=ADAM), steps=20, mode="graphs")
    known = {tensor.data_ptr() for tensor in update.tensors()} | {update.life.clock.data_ptr()}
    known |= {descent.rate.data_ptr() for descent in update.descents.values()}
    parts = [update, update.life, *update.descents.values()]
    for part in parts:
        for value in vars(part).values():
            found = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            assert all(t.data_ptr() in known for t in found if isinstance(t, torch.Tensor))


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_death_within_replays_freezes_and_is_told(seeds):
    """The last seed meets a NaN in the data at step 5; nothing is raised, nothing of it moves any more."""
    table = Table()
    table.y[0] = math.nan
    recorded = learners(seeds, adam=ADAM)
    update = Update(recorded, steps=20, mode="graphs")
    captured = Captured(update, table, recorder=tape.record)
    streams, frozen = Streams(range(seeds), "x", NAMES), {}
    for step in range(9):
        index, noises = collated(*draws(streams, step, update))
        index = index.clamp(min=1)
        if step == 5:
            update.write_back()
            frozen = weights(recorded[-1])
            index[(..., 0)] = torch.tensor([1] * (seeds - 1) + [0]) if seeds > 1 else 0
        captured(step, index, noises)
    update.write_back()
    assert distance(frozen, weights(recorded[-1])) == 0.0
    assert list(update.life.causes()) == [seeds - 1]
    assert "step 5" in update.life.causes()[seeds - 1]
    if seeds > 1:
        assert all(torch.isfinite(t).all() for t in recorded[0].state_dict().values())


def test_the_tape_finds_out_work_that_a_graph_would_miss():
    state = {"x": torch.zeros(2)}

    def rebinds() -> torch.Tensor:
        state["x"] = state["x"] + 1
        return state["x"]

    replay, result = tape.record(rebinds, torch.device("cpu"))
    for _ in range(3):
        replay()
    assert result.tolist() == [1.0, 1.0]  # and not 4

    with pytest.raises(RuntimeError, match="host reads"):
        tape.record(lambda: bool(state["x"].sum() > 0), torch.device("cpu"))


def test_the_eager_update_would_not_record():
    """The static judgement is what makes it recordable."""
    update = Update(learners(1, adam=ADAM), steps=20)
    update.mode = "graphs"
    captured = Captured(update, Table(), recorder=tape.record)
    index, noises = collated(*draws(Streams([0], "x", NAMES), 0, update))
    with pytest.raises(RuntimeError, match="host reads"):
        captured(0, index, noises)


def test_graphs_need_a_gpu():
    with pytest.raises(ValueError, match="mode 'graphs' needs a CUDA device, the learner is on cpu"):
        Together(learners(1), Table(), steps=1, mode="graphs")


def test_gather_leads_with_the_seed():
    index = torch.tensor([[0, 5, 7], [9, 1, 2]])
    table, batch = Table(), gather(Table(), index)
    assert isinstance(batch, Rows)
    assert torch.equal(batch.x[1], table.x[index[1]])
    assert batch.y.shape == (2, 3)
