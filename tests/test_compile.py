"""Compiled updates against eager ones, one graph for each loss with its gradient, and the cost of the loop itself."""

import functools
import statistics
import time

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from ornstein.fit import Run, fit
from ornstein.types import Adam
from ornstein.update import OneByOne, Together, Update
from toys import Table, Two, batch_and_noise, distance, learners, row, weights

pytestmark = pytest.mark.graph
F64 = torch.float64
ADAM = Adam(1e-2, clip=0.5, weight_decay=0.01)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


@pytest.fixture
def _traced(monkeypatch):
    """Traced like every compiled function, but without generated code, which a C compiler takes seconds to build."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))


def compare(dtype: torch.dtype, steps: int, bar: float, seeds: int) -> None:
    compiled, eager = learners(seeds, dtype=dtype, adam=ADAM), learners(seeds, dtype=dtype, adam=ADAM)
    ours, theirs = Update(compiled, steps=steps, mode="compiled"), Update(eager, steps=steps)
    for step in range(steps):
        batch, noises = batch_and_noise(None if seeds == 1 else seeds, step=step, dtype=dtype)
        a, b = ours(step, batch, noises), theirs(step, batch, noises)
        assert torch.allclose(a["first"].values, b["first"].values, atol=1e-5)
    for update in (ours, theirs):
        update.write_back()
    assert all(distance(weights(a), weights(b)) < bar for a, b in zip(compiled, eager, strict=True))


@pytest.mark.parametrize("dtype, steps, bar", [(torch.float32, 1, 1e-5), (F64, 100, 1e-8)], ids=["one", "hundred"])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.usefixtures("_traced")
def test_traced_updates_equal_eager_ones(dtype, steps, bar, seeds):
    compare(dtype, steps, bar, seeds)


@pytest.mark.parametrize(
    "dtype, steps, bar, seeds",
    [
        (F64, 100, 1e-8, 1),
        pytest.param(torch.float32, 1, 1e-5, 1, marks=pytest.mark.slow),
        pytest.param(torch.float32, 1, 1e-5, 3, marks=pytest.mark.slow),
        pytest.param(F64, 100, 1e-8, 3, marks=pytest.mark.slow),
    ],
)
def test_compiled_updates_equal_eager_ones(dtype, steps, bar, seeds):
    compare(dtype, steps, bar, seeds)


@pytest.mark.parametrize("seeds", [1, 3])
def test_each_loss_with_its_gradient_is_one_graph(seeds, monkeypatch):
    """Two losses, two graphs, however often they run; a second stage of other phases is compiled anew."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    update = Update(learners(seeds, adam=ADAM), steps=9, mode="compiled")
    for step in range(6):
        update(step, *batch_and_noise(None if seeds == 1 else seeds, step=step))
    assert counter.frame_count == 2


def test_seeds_one_by_one_share_what_is_compiled(monkeypatch):
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    run = Run(seeds=(0, 1, 2), mode="compiled", quiet=True)
    found = run.build(Two)
    fit(found, Table(), steps=5, batch_size=8, run=run)
    assert counter.frame_count == 2
    plain = Run(seeds=(0, 1, 2), quiet=True)
    expected = plain.build(Two)
    fit(expected, Table(), steps=5, batch_size=8, run=plain)
    assert all(distance(weights(a), weights(b)) < 1e-5 for a, b in zip(found, expected, strict=True))


def test_a_loss_that_breaks_the_graph_is_an_error():
    class Branching(Two):
        def first_loss(self, batch, noise):
            loss, metrics = super().first_loss(batch, noise)
            return (loss if loss.item() > 0 else -loss), metrics

    with pytest.raises((torch._dynamo.exc.UserError, torch._dynamo.exc.Unsupported)):
        Update([Branching()], steps=1, mode="compiled")(0, *batch_and_noise(None))


@pytest.mark.usefixtures("_traced")
def test_a_dead_seed_of_a_compiled_update_is_frozen():
    found = learners(2, adam=ADAM)
    update = Update(found, steps=9, mode="compiled")
    update(0, *batch_and_noise(2))
    update.write_back()
    before = weights(found[1])
    batch, noises = batch_and_noise(2, step=1)
    batch.y[1] = torch.nan
    update(1, batch, noises)
    update.write_back()
    assert distance(before, weights(found[1])) == 0.0
    assert list(update.life.causes()) == [1]


def medians(*work, rounds: int = 15, steps: int = 20) -> list[float]:
    """Median seconds of each function over rounds in which they take turns."""
    times: list[list[float]] = [[] for _ in work]
    for each in work:
        each()
    for _ in range(rounds):
        for own, each in zip(times, work, strict=True):
            began = time.perf_counter()
            for _ in range(steps):
                each()
            own.append(time.perf_counter() - began)
    return [statistics.median(own) / steps for own in times]


def test_four_seeds_on_a_cpu_cost_no_more_than_four_runs():
    run = Run(seeds=(0, 1, 2, 3), quiet=True)
    table, options = Table(), {"steps": 10**6}
    make = functools.partial(Two, width=256)
    together = OneByOne(run.build(make), table, **options)
    alone = [Together([learner], table, **options) for learner in run.build(make)]
    index = [torch.randint(256, (64,)) for _ in range(4)]
    noises = [row(*batch_and_noise(4, rows=64), i)[1] for i in range(4)]
    ours, theirs = medians(
        lambda: together(0, index, noises),
        lambda: [lane(0, index[i : i + 1], noises[i : i + 1]) for i, lane in enumerate(alone)],
    )
    assert ours < 1.1 * theirs


def test_an_update_costs_less_than_the_usual_loop():
    """The usual way: zero_grad, backward, clip_grad_norm_, torch's fused optimiser, and averages by a loop."""
    ours, theirs = learners(2, adam=Adam(1e-3, clip=1.0), every=1)
    update = Update([ours], steps=10**6)
    batch, noises = batch_and_noise(None, rows=64)
    first = torch.optim.Adam(theirs.first.parameters(), 1e-3, fused=True)
    second = torch.optim.Adam(theirs.second.parameters(), 3e-3, fused=True)

    def usual() -> None:
        for optimiser, loss, noise in ((first, theirs.first_loss, "first"), (second, theirs.second_loss, "second")):
            optimiser.zero_grad()
            loss(batch, noises[noise])[0].backward()
            if noise == "first":
                torch.nn.utils.clip_grad_norm_(theirs.first.parameters(), 1.0)
            optimiser.step()
        for a, b in zip(theirs.average.parameters(), theirs.first.parameters(), strict=True):
            a.data.lerp_(b.data, 0.05)

    mine, usually = medians(lambda: update(0, batch, noises), usual)
    assert mine < usually


def test_phases_are_found_once():
    class Counting(Two):
        asked = 0

        def phases(self):
            type(self).asked += 1
            return super().phases()

    update = Update([Counting()], steps=5)
    for step in range(5):
        update(step, *batch_and_noise(None))
    assert Counting.asked == 1
