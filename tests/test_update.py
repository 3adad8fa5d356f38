"""One update against plain torch loops and numbers by hand: Adam, clipping, schedules, delays, averages, deaths."""

import math

import pytest
import torch
from torch import nn

from ornstein.types import Adam, Average, Descend
from ornstein.update import Diverged, Update, learning_rate
from toys import Line, Rows, Two, batch_and_noise, distance, learners, row, weights

F64 = torch.float64


def rows(x: list[list[float]], y: list[float]) -> Rows:
    return Rows(torch.tensor(x, dtype=F64), torch.tensor(y, dtype=F64))


class One(nn.Module):
    """A single weight w with the loss c w, whose gradient is c: Adam's arithmetic and nothing else."""

    def __init__(self, adam: Adam, start: float = 1.0) -> None:
        super().__init__()
        self.inner = nn.Module()
        self.inner.w = nn.Parameter(torch.tensor([start], dtype=F64))
        self.adam = adam

    def phases(self):
        return (Descend("one", self.inner, self.loss, self.adam, {}),)

    def loss(self, batch, noise):
        return (self.inner.w * batch.y.mean()).sum(), {}


def test_two_steps_of_adam_by_hand():
    learner = One(Adam(0.1, betas=(0.5, 0.75)))
    update = Update([learner], steps=2)
    update(0, rows([[0, 0, 0]], [2.0]), {"one": {}})
    # mean 1 and square 1, corrected by 1/2 and 1/4: 2 / sqrt(4) = 1
    assert learner.inner.w.item() == pytest.approx(0.9, abs=1e-8)
    update(1, rows([[0, 0, 0]], [-4.0]), {"one": {}})
    # mean -1.5 / 0.75 = -2; square (0.75 + 4) / 0.4375 = 10.857142857
    assert learner.inner.w.item() == pytest.approx(0.9 + 0.1 * 2 / math.sqrt(10.857142857142858), abs=1e-8)


def test_clipping_scales_the_gradient_before_adam():
    """With beta 0 Adam divides by |g|, so the moments tell what arrived: 3, 4 has norm 5 and is scaled to norm 1."""
    learner = Line(Adam(0.1, clip=1.0, betas=(0.0, 0.0))).double()
    with torch.no_grad():
        learner.line.weight.zero_()
        learner.line.bias.zero_()
    update = Update([learner], steps=1)
    reading = update(0, rows([[1.5, 2.0, 0.0]], [-1.0]), {"line": {}})["line"]
    norm = math.sqrt(3.0**2 + 4.0**2 + 2.0**2)  # gradients 2 (0 + 1) (1.5, 2, 0) and 2
    assert reading.values[reading.names.index("grad_norm"), 0].item() == pytest.approx(norm)
    expected = torch.tensor([[3.0, 4.0, 0.0]], dtype=F64) / (norm + 1e-6)
    assert torch.allclose(update.descents["line"].mean[0], expected, atol=1e-12)


def test_a_gradient_below_the_limit_is_not_touched():
    free, clipped = (Line(Adam(0.1, clip=c, betas=(0.0, 0.0))).double() for c in (0.0, 1e3))
    clipped.load_state_dict(free.state_dict())
    for learner in (free, clipped):
        Update([learner], steps=1)(0, rows([[1.0, 2.0, 0.5]], [3.0]), {"line": {}})
    assert distance(weights(free), weights(clipped)) == 0.0


def plainly(learner: Two, steps: int, rate, adam: Adam, *, every: int) -> None:
    """The same training written the usual way, with torch's optimisers and its clipping."""
    first = torch.optim.Adam(learner.first.parameters(), betas=adam.betas, weight_decay=adam.weight_decay)
    second = torch.optim.Adam(learner.second.parameters(), lr=3e-3)
    for step in range(steps):
        batch, noises = batch_and_noise(None, step=step, dtype=F64)
        first.param_groups[0]["lr"] = rate(step)
        first.zero_grad()
        learner.first_loss(batch, noises["first"])[0].backward()
        if adam.clip:
            nn.utils.clip_grad_norm_(learner.first.parameters(), adam.clip)
        first.step()
        if step % every == 0:
            second.zero_grad()
            learner.second_loss(batch, noises["second"])[0].backward()
            second.step()
        if step % 2 == 0:
            share = 1.0 if step < 4 else 0.05
            for ours, theirs in zip(learner.average.parameters(), learner.first.parameters(), strict=True):
                ours.data = (1 - share) * ours.data + share * theirs.data


@pytest.mark.parametrize(
    "adam",
    [
        Adam(1e-2),
        Adam(1e-2, clip=0.3, betas=(0.8, 0.95)),
        Adam(1e-2, weight_decay=0.1, clip=0.5),
        Adam(1e-2, schedule="cosine", warmup=5),
        Adam(1e-2, accumulate=4, clip=1.0),
    ],
    ids=["plain", "clip", "decay", "schedule", "accumulate"],
)
def test_forty_updates_equal_a_plain_loop(adam):
    ours, theirs = learners(1, dtype=F64, adam=adam, every=3)[0], learners(1, dtype=F64, adam=adam, every=3)[0]
    update = Update([ours], steps=40)
    for step in range(40):
        update(step, *batch_and_noise(None, step=step, dtype=F64))

    def rate(step: int) -> float:
        if adam.schedule == "constant":
            return 1e-2
        return 1e-2 * (step + 1) / 5 if step < 5 else 1e-2 * (1 + math.cos(math.pi * (step - 5) / 35)) / 2

    plainly(theirs, 40, rate, adam, every=3)
    assert distance(weights(ours), weights(theirs)) < 1e-10


def test_learning_rates_by_hand():
    warm = Adam(2.0, warmup=4)
    assert [learning_rate(warm, step, 10) for step in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    cosine = Adam(2.0, schedule="cosine")
    assert [learning_rate(cosine, step, 4) for step in range(4)] == pytest.approx(
        [2.0, 1.0 + math.sqrt(0.5), 1.0, 1.0 - math.sqrt(0.5)]
    )
    both = Adam(2.0, schedule="cosine", warmup=2)
    assert [learning_rate(both, step, 6) for step in range(6)] == pytest.approx(
        [1.0, 2.0, 2.0, 1.0 + math.sqrt(0.5), 1.0, 1.0 - math.sqrt(0.5)]
    )


def averaged(steps: int, **average) -> list[float]:
    """The averaged bias after each step, while the bias itself moves by exactly -1 per step from 0."""
    learner = Line(Adam(1.0, betas=(0.0, 0.0)), average=average).double()
    with torch.no_grad():
        for p in learner.parameters():
            p.zero_()
    update, found = Update([learner], steps=steps), []
    for step in range(steps):
        update(step, rows([[0.0, 0.0, 0.0]], [-1000.0]), {"line": {}})
        assert learner.line.bias.item() == pytest.approx(-(step + 1))
        found.append(learner.mean.bias.item())
    return found


def test_averages_by_hand():
    assert averaged(3, rate=0.25) == pytest.approx([-0.25, -0.6875, -1.265625])
    assert averaged(4, rate=0.5, every=2) == pytest.approx([-0.5, -0.5, -1.75, -1.75])
    assert averaged(4, rate=0.5, after=2) == pytest.approx([0.0, 0.0, -1.5, -2.75])
    assert averaged(4, rate=0.5, after=2, before="copy") == pytest.approx([-1.0, -2.0, -2.5, -3.25])
    assert averaged(5, rate=0.5, after=3, before="copy", every=2) == pytest.approx([-1.0, -1.0, -3.0, -3.0, -4.0])


def test_a_delayed_phase_runs_at_steps_divisible_by_its_delay():
    learner = learners(1, every=3)[0]
    update = Update([learner], steps=9)
    ran = ["second" in update(step, *batch_and_noise(None, step=step)) for step in range(7)]
    assert ran == [True, False, False, True, False, False, True]


def test_readings_are_the_loss_its_metrics_and_the_norm_per_seed():
    batch, noises = batch_and_noise(3)
    stacked = Update(learners(3), steps=5)(0, batch, noises)["first"]
    assert stacked.names == ("loss", "bias", "grad_norm")
    assert stacked.values.shape == (3, 3)
    for i in range(3):
        alone = Update([learners(3)[i]], steps=5)(0, *row(batch, noises, i))["first"]
        assert torch.allclose(stacked.values[:, i], alone.values[:, 0], atol=1e-6)


@pytest.mark.parametrize("dtype, steps, bar", [(torch.float32, 1, 1e-5), (F64, 100, 1e-8)])
@pytest.mark.parametrize(
    "adam", [Adam(1e-2, clip=0.5), Adam(1e-2, accumulate=2, weight_decay=0.1)], ids=["clip", "rest"]
)
def test_seeds_over_a_leading_axis_equal_a_loop_over_seeds(dtype, steps, bar, adam):
    together, alone = learners(4, dtype=dtype, adam=adam), learners(4, dtype=dtype, adam=adam)
    stacked, single = Update(together, steps=steps), [Update([learner], steps=steps) for learner in alone]
    for step in range(steps):
        batch, noises = batch_and_noise(4, step=step, dtype=dtype)
        stacked(step, batch, noises)
        for i, update in enumerate(single):
            update(step, *row(batch, noises, i))
    stacked.write_back()
    for a, b in zip(together, alone, strict=True):
        assert distance(weights(a), weights(b)) < bar
    assert distance(weights(alone[0]), weights(alone[1])) > 0.01


def test_clipping_is_per_seed():
    """A seed with a huge gradient does not shrink the gradient of another."""
    batch, noises = batch_and_noise(2, dtype=F64)
    batch.y[0] *= 1e3
    both = learners(2, dtype=F64, adam=Adam(1e-2, clip=0.5))
    alone = learners(2, dtype=F64, adam=Adam(1e-2, clip=0.5))[1]
    update = Update(both, steps=1)
    update(0, batch, noises)
    Update([alone], steps=1)(0, *row(batch, noises, 1))
    update.write_back()
    assert distance(weights(both[1]), weights(alone)) < 1e-12


def test_gradients_are_taken_in_the_memory_layout_of_their_parameters():
    """The fused Adam walks through memory: a gradient that lies transposed would be added to the wrong entries."""

    class Skew(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Module()
            self.inner.w = nn.Parameter(torch.arange(6.0).view(3, 2).t())

        def phases(self):
            return (Descend("skew", self.inner, self.loss, Adam(1.0, betas=(0.0, 0.0)), {}),)

        def loss(self, batch, noise):
            slope = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])
            return (self.inner.w.contiguous() * slope).sum(), {}

    learner = Skew()
    before = learner.inner.w.detach().clone()
    Update([learner], steps=1)(0, rows([[0, 0, 0]], [0]), {"skew": {}})
    expected = before - torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])
    assert torch.allclose(learner.inner.w.detach(), expected, atol=1e-6)


def test_frozen_parameters_of_a_trained_module_stay():
    learner = learners(1)[0]
    learner.first[0].weight.requires_grad_(False)
    before = weights(learner)
    Update([learner], steps=1)(0, *batch_and_noise(None))
    after = weights(learner)
    assert torch.equal(before["first.0.weight"], after["first.0.weight"])
    assert not torch.equal(before["first.2.weight"], after["first.2.weight"])


class Broken(Two):
    """`Two` with phases that a test replaces."""

    wrong: tuple = ()

    def phases(self):
        return self.wrong


def test_phases_that_cannot_be_run_are_refused():
    learner = Broken()
    plain, draws = Adam(1e-3), {}
    loss = learner.first_loss
    twice = Descend("a", learner.first, loss, plain, draws)
    learner.wrong = (twice, twice)
    with pytest.raises(ValueError, match="different names"):
        Update([learner], steps=1)
    learner.wrong = (Descend("a", nn.Linear(2, 2), loss, plain, draws),)
    with pytest.raises(ValueError, match="Linear has parameters outside of its learner"):
        Update([learner], steps=1)
    learner.wrong = (Descend("a", learner.average, loss, plain, draws),)
    with pytest.raises(ValueError, match="no parameter to train"):
        Update([learner], steps=1)
    learner.wrong = (Descend("a", learner.first, loss, plain, draws), Average(learner.second, learner.first, 0.1))
    with pytest.raises(ValueError, match=r"target and source of an Average differ in '0.bias'"):
        Update([learner], steps=1)
    learner.wrong = (Descend("a", learner, loss, plain, draws),)
    batch, noises = batch_and_noise(None)
    with pytest.raises(ValueError, match=r"'a': its loss does not depend on 'second.weight' \(2 such"):
        Update([learner], steps=1)(0, batch, {"a": noises["first"]})
    learner.wrong = (Descend("a", learner.first, lambda b, n: (b.y.mean(), {}), plain, draws),)
    with pytest.raises(ValueError, match=r"does not depend on 'first.0.weight' \(4 such"):
        Update([learner], steps=1)(0, batch, {"a": {}})


def test_a_batch_that_does_not_divide_is_refused():
    learner = learners(1, adam=Adam(1e-2, accumulate=5))[0]
    with pytest.raises(ValueError, match=r"'first': a batch of 16 rows does not divide into accumulate = 5"):
        Update([learner], steps=1)(0, *batch_and_noise(None))


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30])
def test_a_single_seed_that_diverges_stops_before_the_step(poison):
    learner = learners(1)[0]
    update = Update([learner], steps=9)
    for step in range(3):
        update(step, *batch_and_noise(None, step=step))
    before = weights(learner)
    batch, noises = batch_and_noise(None, step=3)
    batch.y[5] = poison
    with pytest.raises(Diverged, match=r"phase 'first' diverged at step 3: loss (nan|inf|[1-9].*e\+)"):
        update(3, batch, noises)
    assert distance(before, weights(learner)) == 0.0


def test_the_loss_limit_is_the_users():
    learner = learners(1)[0]
    with pytest.raises(Diverged, match=r"below 0.001"):
        Update([learner], steps=9, loss_limit=1e-3)(0, *batch_and_noise(None))


@pytest.mark.parametrize("static", [False, True], ids=["host", "device"])
def test_a_diverged_seed_is_frozen_alone(static):
    """Weight decay and averages do not move the dead either; the others do as if it were not there."""
    adam = Adam(1e-2, clip=0.5, weight_decay=0.1)
    three, two = learners(3, dtype=F64, adam=adam), [learners(3, dtype=F64, adam=adam)[i] for i in (0, 2)]
    update, other = Update(three, steps=30), Update(two, steps=30)
    if static:
        update.life.static = update.life.masked = True
        for descent in update.descents.values():
            descent.rate = torch.zeros(())
    frozen = {}
    for step in range(12):
        batch, noises = batch_and_noise(3, step=step, dtype=F64)
        if step == 5:
            update.write_back()
            frozen = weights(three[1])
            batch.y[1, 0] = math.nan
        update(step, batch, noises)
        pair = torch.tensor([0, 2])
        fewer = {p: {n: d[pair] for n, d in e.items()} for p, e in noises.items()}
        other(step, Rows(batch.x[pair], batch.y[pair]), fewer)
    update.write_back()
    other.write_back()
    assert distance(frozen, weights(three[1])) == 0.0
    for mine, theirs in ((three[0], two[0]), (three[2], two[1])):
        assert distance(weights(mine), weights(theirs)) < (1e-7 if static else 1e-12)  # a rate on a device is float32
    assert list(update.life.causes()) == [1]
    assert "phase 'first' diverged at step 5: loss nan" in update.life.causes()[1]


def test_the_death_of_the_last_seed_is_raised():
    update = Update(learners(2), steps=9)
    batch, noises = batch_and_noise(2)
    batch.y[0] = math.nan
    update(0, batch, noises)
    batch.y[1] = math.nan
    with pytest.raises(Diverged, match="step 0"):
        update(1, batch, noises)
    assert list(update.life.causes()) == [0, 1]


def test_state_goes_from_one_update_to_another():
    kept = learners(2, dtype=F64)
    first = Update(kept, steps=9)
    for step in range(4):
        first(step, *batch_and_noise(2, step=step, dtype=F64))
    first.write_back()
    copies = learners(2, dtype=F64)
    for copy, learner in zip(copies, kept, strict=True):
        copy.load_state_dict(learner.state_dict())
    second = Update(copies, steps=9)
    second.load_state([first.state(0), first.state(1)])
    for step in range(4, 8):
        for update in (first, second):
            update(step, *batch_and_noise(2, step=step, dtype=F64))
        assert first.descents["first"].count.item() == step + 1
    for update in (first, second):
        update.write_back()
    assert all(distance(weights(a), weights(b)) == 0.0 for a, b in zip(kept, copies, strict=True))


def test_averages_of_buffers_follow_too():
    class Counted(Line):
        def __init__(self) -> None:
            super().__init__(Adam(1e-2), average={"rate": 0.5})
            self.line.register_buffer("scale", torch.tensor(3.0))
            self.mean.register_buffer("scale", torch.tensor(1.0))
            self.line.register_buffer("seen", torch.tensor(7))
            self.mean.register_buffer("seen", torch.tensor(0))

    learner = Counted()
    Update([learner], steps=1)(0, Rows(torch.zeros(2, 3), torch.zeros(2)), {"line": {}})
    assert (float(learner.mean.scale), int(learner.mean.seen)) == (2.0, 7)


def test_an_average_refuses_the_share_of_the_old_weights():
    with pytest.raises(ValueError, match="share of the new weights"):
        Average(nn.Linear(1, 1), nn.Linear(1, 1), 0.0)
    with pytest.raises(ValueError, match=r"rate = 1.5"):
        Average(nn.Linear(1, 1), nn.Linear(1, 1), 1.5)
