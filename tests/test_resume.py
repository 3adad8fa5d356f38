"""Runs that are killed, at any moment and in any write, go on and end bit-equal to runs that were not."""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ornstein import checkpoint
from ornstein.fit import Run, fit
from ornstein.types import Adam
from toys import Table, Two, distance, weights

STEPS = 11


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """A kill, unlike a power failure, loses nothing that was written: there is no need to wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def score(learner: Two) -> float:
    """A number that goes up and down along a training."""
    return float(torch.cos(1e4 * learner.first[0].weight.detach().double().sum()))


def train(
    directory: Path, *, seeds: tuple[int, ...] = (3,), stages: int = 1, axis: bool = False, **options
) -> list[Two]:
    """Two stages at most; between them the learner is changed by what it has become, as a system might do."""
    run = Run(
        directory,
        seeds,
        resume=True,
        checkpoint_every=4,
        log_every=3,
        seed_axis=axis,
        quiet=True,
        score=score,
        **options,
    )
    run.claim()
    learners = run.build(lambda: Two(adam=Adam(1e-2, clip=1.0, schedule="cosine")))
    for stage in range(stages):
        fit(learners, Table(), steps=STEPS, batch_size=4, run=run, stage=f"stage {stage}", validation=Table(9, 1))
        for learner in learners:
            with torch.no_grad():
                learner.second.weight.copy_(learner.first[0].weight[:1] * (stage + 1))
    return learners


def content(directory: Path) -> dict[str, object]:
    """All that a run leaves behind, without times."""
    found: dict[str, object] = {}
    for folder in sorted({path.parent for path in directory.rglob("metrics.jsonl")}):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        name = folder.relative_to(directory)
        found[f"{name} log"] = [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]
        steps = checkpoint.steps(folder)
        found[f"{name} steps"] = steps
        found[f"{name} links"] = [os.readlink(folder / "checkpoints" / link) for link in ("last", "best")]
        for step in steps:
            path = folder / "checkpoints" / f"{step:08d}"
            for file in ("weights", "training_state"):
                found[f"{name} {step} {file}"] = (path / f"{file}.safetensors").read_bytes()
            position = json.loads((path / "training_state.json").read_text())
            found[f"{name} {step} position"] = {k: v for k, v in position.items() if k != "seconds"}
    assert found
    return found


def differences(a: dict[str, object], b: dict[str, object]) -> list[str]:
    return [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]


def child(work: Callable[[], object]) -> int:
    """Run `work` in a process of its own; the process number of it."""
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return number


def outcome(number: int) -> int:
    """0 done, 1 failed, -9 killed."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate"}


def counting(directory: Path, die_at: int) -> list[str]:
    """Count this process's accesses to files below a directory, and be killed before the one numbered `die_at`."""
    seen: list[str] = []

    def note(event: str, arguments: tuple) -> None:
        if event in EVENTS and arguments and str(directory) in str(arguments[:2]):
            seen.append(event)
            if len(seen) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(note)
    return seen


def accesses(tmp_path: Path, work: Callable[[Path], object]) -> int:
    """How often an undisturbed run touches its files."""
    report = tmp_path / "accesses"

    def counted() -> None:
        seen = counting(tmp_path / "counted", -1)
        work(tmp_path / "counted")
        report.write_text(str(len(seen)))

    assert outcome(child(counted)) == 0
    return int(report.read_text())


CASES = {
    "one seed, two stages": {"stages": 2},
    "three seeds one by one": {"seeds": (3, 1, 2)},
    "three seeds over an axis, two stages": {"seeds": (3, 1, 2), "axis": True, "stages": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_before_any_file_access_ends_the_same(tmp_path, case):
    """Crash points are spread over the whole run, checkpoint writes included, where most accesses are."""
    options = CASES[case]
    whole = train(tmp_path / "whole", **options)
    expected = content(tmp_path / "whole")
    count = accesses(tmp_path, lambda directory: train(directory, **options))
    assert count > 100
    points = random.Random(case).sample(range(1, count + 1), 6 if options.get("axis") else 12)
    for point in sorted(points):
        directory = tmp_path / f"killed at {point}"

        def work(directory: Path = directory, point: int = point) -> None:
            counting(directory, point)
            train(directory, **options)

        assert outcome(child(work)) == -signal.SIGKILL
        resumed = train(directory, **options)
        assert not differences(expected, content(directory)), point
        assert all(distance(weights(a), weights(b)) == 0.0 for a, b in zip(whole, resumed, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_again_and_again_at_random_moments_ends_the_same(tmp_path, case):
    options = CASES[case]
    began = time.perf_counter()
    train(tmp_path / "whole", **options)
    seconds, chance, kills = time.perf_counter() - began, random.Random(case), 0
    for _ in range(60):
        number = child(lambda: train(tmp_path / "killed", **options))
        time.sleep(chance.uniform(0.05, 0.6) * seconds)
        os.kill(number, signal.SIGKILL)
        found = outcome(number)
        kills += found == -signal.SIGKILL
        if found == 0:
            break
    train(tmp_path / "killed", **options)
    assert kills >= 1
    assert not differences(content(tmp_path / "whole"), content(tmp_path / "killed"))


def test_seeds_one_by_one_are_bit_equal_to_runs_of_their_own(tmp_path):
    together = train(tmp_path / "three", seeds=(3, 1, 2))
    for seed, learner in zip((3, 1, 2), together, strict=True):
        alone = train(tmp_path / f"{seed}", seeds=(seed,))[0]
        assert distance(weights(alone), weights(learner)) == 0.0
        expected = {k.replace(". ", f"seed-{seed} ", 1): v for k, v in content(tmp_path / f"{seed}").items()}
        theirs = content(tmp_path / "three")
        assert not [name for name in expected if expected[name] != theirs[name]]


class Mortal(Two):
    """Its loss becomes NaN when its weights have moved by a few steps, if it is cursed."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("curse", torch.tensor(0.0), persistent=False)
        self.register_buffer("start", self.first[0].weight.detach().clone())

    def first_loss(self, batch, noise):
        loss, metrics = super().first_loss(batch, noise)
        far = (self.first[0].weight - self.start).detach().abs().amax() > 0.05
        return loss + torch.where(far & (self.curse > 0), torch.nan, 0.0), metrics


def mortals(directory: Path, *, axis: bool) -> list[Two]:
    """Two stages of three seeds, of which the second is cursed."""
    run = Run(directory, (0, 1, 2), resume=True, checkpoint_every=4, log_every=3, seed_axis=axis, quiet=True)
    learners = run.build(Mortal)
    learners[1].curse.fill_(1.0)
    for stage in ("a", "b"):
        fit(learners, Table(), steps=12, batch_size=4, run=run, stage=stage)
    return learners


def lines(folder: Path) -> list[dict[str, float]]:
    """The metrics of one seed without times."""
    found = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in found]


@pytest.mark.parametrize("axis", [False, True], ids=["one by one", "axis"])
def test_a_dead_seed_stays_dead_across_a_resume_and_into_the_next_stage(tmp_path, axis, capfd):
    """Its `last` is the checkpoint before its death; the others go on as if nothing had happened."""
    whole, folder = mortals(tmp_path / "whole", axis=axis), tmp_path / "whole" / "seed-1"
    assert "seed 1 is frozen: stage 'a', phase 'first' diverged at step" in capfd.readouterr().err
    told = [line for line in lines(folder) if "diverged" in line]
    assert len(told) == 1
    last = int(os.readlink(folder / "checkpoints" / "last"))
    assert 4 <= last < told[0]["step"] < 12
    assert lines(folder)[-1] == told[0]
    card = checkpoint.read_json(folder / "checkpoints" / "00000024" / "card.json")
    assert card["diverged"].startswith("stage 'a', phase 'first' diverged at step")
    healthy = checkpoint.read_json(tmp_path / "whole" / "seed-0" / "checkpoints" / "last" / "card.json")
    assert (healthy["step"], healthy["diverged"]) == (24, None)

    count = accesses(tmp_path, lambda directory: mortals(directory, axis=axis))
    for share in (0.55, 0.8):

        def killed(share: float = share) -> None:
            counting(tmp_path / f"killed {share}", int(share * count))
            mortals(tmp_path / f"killed {share}", axis=axis)

        assert outcome(child(killed)) == -signal.SIGKILL
        resumed = mortals(tmp_path / f"killed {share}", axis=axis)
        assert all(distance(weights(a), weights(b)) == 0.0 for a, b in zip(whole, resumed, strict=True))
        for seed in range(3):
            names = [tmp_path / name / f"seed-{seed}" for name in ("whole", f"killed {share}")]
            assert lines(names[0]) == lines(names[1])
