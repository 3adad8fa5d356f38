"""A bench that is killed goes on where it was, and ends with the rows of one that was not."""

import json
import os
import random
import signal
import sys
import time
from functools import partial

import pytest

from bench.kill import OWN, finish, kill, recording, results, start, wait_until, workers

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="finds the workers to kill in /proc, which only Linux has"
)
SYSTEMS = ("td3_bc,width=8", "diffusion_cloning,width=8,diffusion_steps=2,lr=1e-3", OWN)


def words(folder, out, *, seeds, steps, systems=SYSTEMS):
    data = [recording(folder / f"{name}.npz", seed) for seed, name in enumerate(("one", "two"))]
    small = ("--env", "Pendulum-v1", "--seeds", seeds, "--steps", steps, "--episodes", 2, "--max-steps", 20)
    return (*systems, "--data", *data, *small, "--out", out)


def count(file):
    """Whole lines of a file."""
    return file.read_bytes().count(b"\n") if file.exists() else 0


def more(file, before):
    return count(file) > before


def killed_twice(folder, *, seeds, steps, workers_=1, moments=None):
    """An undisturbed bench, and one that is killed at two moments (seconds, or after a number of rows)."""
    whole, cut = folder / "whole", folder / "cut"
    finish(*words(folder, whole, seeds=seeds, steps=steps), "--workers", workers_)
    ours = (*words(folder, cut, seeds=seeds, steps=steps), "--workers", workers_)
    for moment in moments:
        process = start(*ours)
        wait_until(partial(more, cut / "rows.jsonl", count(cut / "rows.jsonl")), process)
        time.sleep(moment)
        kill(process)
        end = time.monotonic() + 30
        while workers(cut) and time.monotonic() < end:
            time.sleep(0.02)
        assert not workers(cut), "workers linger"
    last = finish(*ours)
    assert last["there"] > 0
    assert results(cut) == results(whole)
    assert len(results(cut)) == 6 * seeds
    return last


def test_a_bench_killed_in_the_middle_ends_with_the_same_rows(tmp_path):
    last = killed_twice(tmp_path, seeds=1, steps=300, moments=[0.15])
    assert last["made"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_three_systems_two_sets_three_seeds_killed_at_random_twice(tmp_path, seed):
    source = random.Random(seed)
    killed_twice(tmp_path, seeds=3, steps=600, workers_=2, moments=[source.uniform(0, 3) for _ in range(2)])


def test_interrupts_end_cleanly_with_a_checkpoint_and_without_workers(tmp_path):
    out = tmp_path / "out"
    ours = words(tmp_path, out, seeds=1, steps=100_000, systems=(OWN,))
    process = start(*ours, "--workers", 2)
    wait_until(lambda: len(list(out.glob("runs/**/metrics.jsonl"))) == 2, process)
    os.kill(process.pid, signal.SIGINT)
    printed, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert json.loads(printed) == {"error": "interrupted"}
    assert "Traceback" not in err
    assert not workers(out)
    assert len(list(out.glob("runs/**/checkpoints/last"))) == 2
    assert not (out / "rows.jsonl").exists() and not (out / "errors").exists()


def test_a_worker_that_is_killed_is_replaced_and_its_row_tried_again(tmp_path):
    out = tmp_path / "out"
    ours = words(tmp_path, out, seeds=1, steps=3000, systems=(OWN,))
    process = start(*ours)
    wait_until(lambda: list(out.glob("runs/**/metrics.jsonl")), process)
    os.kill(workers(out)[0], signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    found = json.loads(printed)
    assert found["made"] == 1 and len(found["failed"]) == 1 and "SIGKILL" in found["error"]
    assert "SIGKILL" in next(out.glob("errors/*.txt")).read_text()
    assert finish(*ours)["made"] == 1
    assert len(results(out)) == 2 and not list(out.glob("errors/*.txt"))
