"""The training loop: what it does with a run's options, and how it stops."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ornstein import checkpoint
from ornstein.checkpoint import files
from ornstein.fit import Diverged, Run, digest, fit
from ornstein.noise import Streams
from ornstein.types import Adam
from ornstein.update import OneByOne, PerSeed, Together, Update
from toys import Rows, Table, Two, distance, weights


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def trained(run: Run, *, steps: int = 10, data: Table | None = None, **options) -> list[Two]:
    learners = run.build(Two)
    fit(learners, data or Table(), steps=steps, batch_size=4, run=run, **options)
    return learners


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_fit_is_streams_and_updates_and_nothing_else():
    run = Run(seeds=(5,), quiet=True)
    learner, update = trained(run)[0], Update(run.build(Two), steps=10)
    streams, table = Streams([5], "train", ["first", "second"]), Table()
    for step in range(10):
        specs = {p.name: p.noise for p in update.active(step) if hasattr(p, "noise")}
        index, noise = streams.indices(256, 4)[0], streams.noises(specs, 4)[0]
        update(step, table.gather(index), noise)
    assert distance(weights(learner), weights(update.learners[0])) == 0.0


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    a, b, c = (trained(Run(seeds=(seed,), quiet=True))[0] for seed in (1, 1, 2))
    assert digest(a.state_dict()) == digest(b.state_dict())
    assert digest(a.state_dict()) != digest(c.state_dict())


def test_learners_end_in_evaluation_mode_and_are_trained_in_training_mode():
    class Moody(Two):
        modes: tuple = ()

        def first_loss(self, batch, noise):
            type(self).modes += (self.training,)
            return super().first_loss(batch, noise)

    run = Run(quiet=True)
    learners = [Moody().eval()]
    fit(learners, Table(), steps=3, batch_size=4, run=run, validation=None)
    assert not learners[0].training
    assert Moody.modes == (True,) * 3


def test_logged_values_are_means_since_the_line_before(tmp_path):
    """Against the readings of every single step; the delayed phase is averaged over the steps that it ran."""
    run = Run(tmp_path, log_every=4, quiet=True)
    trained(run)
    update, streams, table = Update(Run().build(Two), steps=10), Streams([0], "train", ["first", "second"]), Table()
    losses, delayed = [], []
    for step in range(10):
        specs = {p.name: p.noise for p in update.active(step) if hasattr(p, "noise")}
        readings = update(step, table.gather(streams.indices(256, 4)[0]), streams.noises(specs, 4)[0])
        losses.append(float(readings["first"].values[0]))
        delayed += [float(readings["second"].values[0])] if "second" in readings else []
    lines = log(tmp_path)
    assert [line["step"] for line in lines] == [4, 8, 10]
    assert [line["first/loss"] for line in lines] == pytest.approx(
        [sum(losses[:4]) / 4, sum(losses[4:8]) / 4, sum(losses[8:]) / 2]
    )
    assert [line["second/loss"] for line in lines] == pytest.approx(
        [sum(delayed[:2]) / 2, sum(delayed[2:4]) / 2, delayed[4]]
    )
    assert {"first/bias", "first/grad_norm", "second/grad_norm", "time/steps_per_s"} < lines[0].keys()


def test_checkpoints_come_at_their_interval_and_at_the_end(tmp_path):
    trained(Run(tmp_path, checkpoint_every=4, keep=5, quiet=True))
    assert checkpoint.steps(tmp_path) == [4, 8, 10]
    assert os.readlink(tmp_path / "checkpoints" / "last") == "00000010"
    card = checkpoint.read(tmp_path).card
    assert card["step"] == 10
    assert card["seed"] == 0
    assert card["weights_sha256"] == digest(checkpoint.read(tmp_path).weights)


def test_the_best_checkpoint_is_kept_and_named(tmp_path):
    """The second of five has the highest score; among equals the first stays."""
    scores = iter([0.0, 3.0, -1.0, math.nan, 3.0])
    seen: list[bool] = []

    def score(learner: nn.Module) -> float:
        seen.append(learner.training)
        return next(scores)

    trained(Run(tmp_path, checkpoint_every=2, score=score, quiet=True))
    assert os.readlink(tmp_path / "checkpoints" / "best") == "00000004"
    assert checkpoint.steps(tmp_path) == [4, 8, 10]
    assert checkpoint.read(tmp_path, "best").card["values"] == {"score": 3.0}
    assert [line["score"] for line in log(tmp_path) if "score" in line] == [0.0, 3.0, -1.0, None, 3.0]
    assert seen == [False] * 5


def test_validation_is_logged_with_fixed_noise_and_disturbs_nothing(tmp_path):
    free = trained(Run(tmp_path / "free", checkpoint_every=3, quiet=True))[0]
    watched = trained(Run(tmp_path / "watched", checkpoint_every=3, quiet=True), validation=Table(40, 7))[0]
    assert distance(weights(free), weights(watched)) == 0.0
    found = [line for line in log(tmp_path / "watched") if "validation/first/loss" in line]
    assert [line["step"] for line in found] == [3, 6, 9, 10]
    assert {"validation/first/loss", "validation/second/loss"} < found[0].keys()
    frozen = Run(tmp_path / "frozen", checkpoint_every=3, quiet=True)
    learners = frozen.build(lambda: Two(adam=Adam(0.0)))
    fit(learners, Table(), steps=9, batch_size=4, run=frozen, validation=Table(40, 7))
    losses = {line["validation/first/loss"] for line in log(tmp_path / "frozen") if "validation/first/loss" in line}
    assert len(losses) == 1  # the same weights have the same loss at every checkpoint


def test_a_share_of_the_episodes_is_held_out():
    asked: list[tuple[float, int]] = []

    class Shared:
        def split(self, share, generator):
            asked.append((share, generator.initial_seed()))
            return 7, 3

    alone, none = Run().batches(5, Table)
    assert (len(alone), none) == (5, None)
    for seed in (0, 9):
        train, held_out = Run(validation=0.25, seeds=(seed,)).batches(Shared(), Table)
        assert held_out is not None
        assert (len(train), len(held_out)) == (7, 3)
    assert asked[0][0] == 0.25
    assert asked[0] == asked[1]  # all seeds are validated on the same episodes


def test_fine_tuning_starts_from_a_checkpoint(tmp_path):
    first = trained(Run(tmp_path / "first", quiet=True))[0]
    run = Run(tmp_path / "second", seeds=(8,), init_from=tmp_path / "first", quiet=True)
    assert distance(weights(run.build(Two)[0]), weights(first)) == 0.0
    assert distance(weights(trained(run)[0]), weights(first)) > 1e-3
    pairs = Run(tmp_path / "pair", seeds=(1, 2), quiet=True)
    both = trained(pairs)
    again = Run(seeds=(2, 1), init_from=tmp_path / "pair").build(Two)
    assert distance(weights(again[0]), weights(both[1])) == 0.0
    with pytest.raises(ValueError, match="holds several seeds: name one of seed-1, seed-2"):
        Run(seeds=(3,), init_from=tmp_path / "pair").build(Two)
    with pytest.raises(ValueError, match="has shape"):
        Run(init_from=tmp_path / "first").build(lambda: Two(width=16))


def test_a_longer_run_goes_on_where_a_shorter_one_ended(tmp_path):
    plain = Adam(1e-2)
    for steps in (6, 10):
        run = Run(tmp_path / "grown", resume=True, checkpoint_every=4, quiet=True)
        learners = run.build(lambda: Two(adam=plain))
        fit(learners, Table(), steps=steps, batch_size=4, run=run)
    whole = Run(quiet=True).build(lambda: Two(adam=plain))
    fit(whole, Table(), steps=10, batch_size=4, run=Run(quiet=True))
    assert distance(weights(learners[0]), weights(whole[0])) == 0.0
    assert [line["step"] for line in log(tmp_path / "grown")] == [6, 10]


def test_the_runs_steps_override_the_configurations(tmp_path):
    trained(Run(tmp_path, steps=3, quiet=True), steps=1000)
    assert checkpoint.steps(tmp_path) == [3]


def test_a_run_needs_its_own_directory(tmp_path):
    trained(Run(tmp_path, quiet=True))
    with pytest.raises(ValueError, match="holds another run; choose an empty directory, or resume it"):
        trained(Run(tmp_path, quiet=True))


@pytest.mark.parametrize("poison", [math.nan, 1e30])
def test_divergence_stops_the_run_and_leaves_the_last_good_checkpoint(tmp_path, poison):
    class Ticking(Table):
        """Turns bad at the seventh batch."""

        drawn = 0

        def gather(self, index: Tensor) -> Rows:
            self.drawn += 1
            batch = super().gather(index)
            return batch._replace(y=batch.y * poison) if self.drawn == 7 else batch

    expected = (
        r"stage 'train', phase 'first' diverged at step 6: loss .*; "
        r"the last good checkpoint is .*checkpoints/last"
    )
    with pytest.raises(Diverged, match=expected):
        trained(Run(tmp_path, checkpoint_every=2, quiet=True), data=Ticking())
    assert checkpoint.steps(tmp_path) == [4, 6]
    good = checkpoint.read(tmp_path)
    assert good.card["step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in good.weights.values())
    resumed = trained(Run(tmp_path, checkpoint_every=2, resume=True, quiet=True))[0]
    assert distance(weights(resumed), weights(trained(Run(quiet=True))[0])) == 0.0


def test_divergence_without_a_checkpoint_says_so(tmp_path):
    data = Table(4, nan_at=0)
    with pytest.raises(Diverged, match=r"step 0: loss nan.*there is no checkpoint yet"):
        trained(Run(tmp_path, quiet=True), data=data)
    with pytest.raises(Diverged, match="the run keeps no checkpoints"):
        trained(Run(quiet=True), data=data)


@pytest.mark.parametrize("axis", [False, True])
def test_several_seeds_that_all_diverge_stop_the_run(tmp_path, axis):
    with pytest.raises(Diverged, match="there is no checkpoint yet"):
        trained(Run(tmp_path, seeds=(0, 1), seed_axis=axis, quiet=True), data=Table(4, nan_at=0))


@pytest.mark.parametrize("axis", [None, True])
def test_seeds_on_a_cpu_run_one_by_one_unless_the_axis_is_asked_for(axis, monkeypatch):
    kinds: list[type] = []
    for kind in (Together, OneByOne):
        call = kind.__call__
        monkeypatch.setattr(kind, "__call__", lambda self, *a, _k=kind, _c=call: kinds.append(_k) or _c(self, *a))
    trained(Run(seeds=(0, 1), seed_axis=axis, quiet=True), steps=1)
    assert kinds[0] is (Together if axis else OneByOne)


@pytest.mark.parametrize("axis", [False, True])
def test_seeds_may_each_have_data_of_their_own(axis):
    tables = [Table(seed=seed) for seed in (0, 1)]
    both = trained(Run(seeds=(3, 4), seed_axis=axis, quiet=True), data=PerSeed(tables))  # type: ignore[arg-type]
    for seed, table, learner in zip((3, 4), tables, both, strict=True):
        alone = trained(Run(seeds=(seed,), quiet=True), data=table)[0]
        assert distance(weights(learner), weights(alone)) < (1e-5 if axis else 1e-12)
    only = trained(Run(seeds=(4,), quiet=True), data=PerSeed(tables[1:]))[0]  # type: ignore[arg-type]
    assert distance(weights(only), weights(both[1])) < (1e-5 if axis else 1e-12)
    with pytest.raises(ValueError, match=r"data of \[256, 4\] examples"):
        PerSeed([Table(), Table(4)])


CTRL_C = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from toys import Table, Two
from ornstein.fit import Run, fit
torch.set_num_threads(1)
run = Run(Path({directory!r}), checkpoint_every=10**9, log_every=50)
print("ready", flush=True)
fit(run.build(Two), Table(), steps=10**9, batch_size=4, run=run)
"""


def test_ctrl_c_ends_with_a_checkpoint(tmp_path):
    code = CTRL_C.format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while not (tmp_path / "metrics.jsonl").exists() or not (tmp_path / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert "stopping after this step and a checkpoint" in errors
    assert "KeyboardInterrupt" in errors
    step = checkpoint.read(tmp_path).card["step"]
    assert step >= 50
    assert checkpoint.steps(tmp_path) == [step]
    assert not list(tmp_path.rglob("*.tmp"))
    resumed = trained(Run(tmp_path, resume=True, steps=step + 1, quiet=True))
    assert checkpoint.steps(tmp_path) == [step, step + 1]
    assert len(resumed) == 1


class Interrupting(Table):
    """A table in the middle of whose n-th batch somebody presses Ctrl-C."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.drawn = at, 0

    def gather(self, index: Tensor) -> Rows:
        self.drawn += 1
        if self.drawn == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().gather(index)


def test_an_interrupt_between_two_steps_loses_none(tmp_path):
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell runs the tests in the background
    with pytest.raises(KeyboardInterrupt):
        trained(Run(tmp_path, quiet=True), data=Interrupting(4))
    assert checkpoint.steps(tmp_path) == [4]
    assert signal.getsignal(signal.SIGINT) is before
    resumed = trained(Run(tmp_path, resume=True, quiet=True))[0]
    assert distance(weights(resumed), weights(trained(Run(quiet=True))[0])) == 0.0


def test_a_score_that_fails_loses_no_training(tmp_path):
    """The error goes on, but what was trained until then is kept, and the run ends with the weights of another."""

    def broken(learner: nn.Module) -> float:
        raise ValueError("the simulator is gone")

    with pytest.raises(ValueError, match="the simulator is gone"):
        trained(Run(tmp_path / "a", (3, 4), seed_axis=False, checkpoint_every=4, quiet=True, score=broken))
    for seed in (3, 4):
        assert checkpoint.steps(tmp_path / "a" / f"seed-{seed}") == [4]
    mended = trained(Run(tmp_path / "a", (3, 4), seed_axis=False, checkpoint_every=4, quiet=True, resume=True))
    whole = trained(Run(tmp_path / "b", (3, 4), seed_axis=False, checkpoint_every=4, quiet=True))
    assert all(distance(weights(a), weights(b)) == 0.0 for a, b in zip(mended, whole, strict=True))


def test_a_checkpoint_of_an_interrupt_is_not_scored(tmp_path):
    """The scores, of which the best is kept, are those of a run that nothing disturbed."""
    seen: list[int] = []
    run = Run(tmp_path, quiet=True, checkpoint_every=4, score=lambda _: float(seen.append(0) or len(seen)))
    with pytest.raises(KeyboardInterrupt):
        trained(run, data=Interrupting(6))
    assert (checkpoint.steps(tmp_path), len(seen)) == ([4, 6], 1)
    trained(replace(run, resume=True))
    assert [line["step"] for line in log(tmp_path) if "score" in line] == [4, 8, 10]


@pytest.mark.parametrize("error", ["safetensors", "system"])
def test_a_full_disk_leaves_the_last_checkpoint_usable(tmp_path, monkeypatch, error):
    """The second checkpoint finds no space for its second file; the run resumes when there is some."""
    real, written = files.save_file, []

    def save(tensors, path):
        written.append(path)
        if len(written) == 4:
            Path(path).write_bytes(b"half")
            if error == "system":
                raise OSError(errno.ENOSPC, "No space left on device")
            raise files.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(tensors, path)

    monkeypatch.setattr(files, "save_file", save)
    with pytest.raises(OSError, match="No space left") as caught:
        trained(Run(tmp_path, checkpoint_every=4, quiet=True))
    assert caught.value.errno == errno.ENOSPC
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["00000004", "last"]
    resumed = trained(Run(tmp_path, checkpoint_every=4, resume=True, quiet=True))[0]
    assert distance(weights(resumed), weights(trained(Run(quiet=True))[0])) == 0.0


def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="give at least one seed, each once"):
        Run(seeds=())
    with pytest.raises(ValueError, match="each once"):
        Run(seeds=(1, 1))
    with pytest.raises(ValueError, match="steps = 0 must be at least 1"):
        Run(steps=0)
    with pytest.raises(ValueError, match=r"validation = 1.0 is a share of the episodes in \[0, 1\)"):
        Run(validation=1.0)
    with pytest.raises(ValueError, match="checkpoint_every = 0"):
        Run(checkpoint_every=0)
    with pytest.raises(ValueError, match="log_every = 0"):
        Run(log_every=0)
    with pytest.raises(ValueError, match="keep = 1 must be at least 2"):
        Run(keep=1)
    with pytest.raises(ValueError, match="2 learners for 1 seeds"):
        fit([Two(), Two()], Table(), steps=1, batch_size=1, run=Run())
    with pytest.raises(ValueError, match="the data set is empty"):
        fit([Two()], Table(0), steps=1, batch_size=1, run=Run())


def claimed(tmp_path: Path, **options) -> None:
    Run(tmp_path, **({"meta": {"config": {"lr": 0.1, "sizes": (1, 2)}, "data": {"hash": "a"}}} | options)).claim()


def test_a_directory_is_claimed_once_and_resumed_only_by_the_same(tmp_path):
    claimed(tmp_path / "run")
    with pytest.raises(ValueError, match="holds another run"):
        claimed(tmp_path / "run")
    claimed(tmp_path / "run", resume=True)
    other = {"config": {"lr": 0.2, "sizes": (1, 2)}, "data": {"hash": "a"}}
    with pytest.raises(ValueError, match=r"cannot resume, config.lr was 0.1 and is now 0.2"):
        claimed(tmp_path / "run", resume=True, meta=other)
    with pytest.raises(ValueError, match="cannot resume, seed was 0 and is now 4"):
        claimed(tmp_path / "run", resume=True, seeds=(4,))
    with pytest.raises(ValueError, match=r"holds 'run.json' and is not this run's"):
        claimed(tmp_path / "run", resume=True, seeds=(0, 1))
    claimed(tmp_path / "seeds", seeds=(0, 1))
    claimed(tmp_path / "seeds", seeds=(0, 1), resume=True)
    assert checkpoint.read_json(tmp_path / "seeds" / "seed-1" / "run.json")["seed"] == 1
    with pytest.raises(ValueError, match="holds 'seed-0' and is not this run's"):
        claimed(tmp_path / "seeds")


def test_a_directory_with_foreign_files_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds 'notes.txt' and is not this run's"):
        claimed(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        claimed(tmp_path / "notes.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_what_a_kill_left_in_a_fresh_directory_is_swept(tmp_path):
    (tmp_path / ".run.json.1.tmp").write_text("{")
    claimed(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_weights_depend_on_their_seed_alone():
    torch.manual_seed(77)
    before = torch.get_rng_state()
    one, two = Run(seeds=(4, 9)).build(Two)
    assert torch.equal(torch.get_rng_state(), before)
    assert distance(weights(two), weights(Run(seeds=(9,)).build(Two)[0])) == 0.0
    assert distance(weights(one), weights(two)) > 0.0


def test_digests_tell_names_and_values_apart():
    a = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([3])}
    assert digest(a) == digest(dict(reversed(a.items())))
    assert digest(a) != digest({"x": torch.tensor([1.0, 2.000001]), "y": torch.tensor([3])})
    assert digest({"x": torch.zeros(1)}) != digest({"z": torch.zeros(1)})
