"""Benches as processes: small data, started, killed with all that they started, and compared by their rows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ornstein.bench.rows import TIMES

OWN = str(Path(__file__).parent.parent / "own_system.py")


def recording(path: Path, seed: int, *, episodes: int = 8, length: int = 20) -> str:
    """An NPZ file of random episodes of Pendulum's sizes."""
    source = np.random.default_rng(seed)
    n = episodes * length
    np.savez(
        path,
        observations=source.normal(size=(n, 3)).astype(np.float32),
        actions=source.uniform(-2, 2, size=(n, 1)).astype(np.float32),
        rewards=source.normal(size=n).astype(np.float32),
        terminals=np.zeros(n, bool),
        timeouts=np.arange(n) % length == length - 1,
    )
    return str(path)


def start(*words: object) -> subprocess.Popen[str]:
    """A bench in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ornstein", "bench", *map(str, words), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(*words: object) -> dict:
    """What a bench that is left alone printed."""
    process = start(*words)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return json.loads(out)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a bench's process group with SIGKILL."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_until(happened, process: subprocess.Popen[str], seconds: float = 300.0) -> None:
    """Wait for something while the process runs."""
    end = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def workers(out: Path) -> list[int]:
    """The worker processes of a bench that are alive, by their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"ornstein.bench.worker" in words and str(out).encode() in words:
            found.append(int(entry.name))
    return found


def results(out: Path) -> dict[tuple, dict]:
    """The rows by what they are of, without what differs from run to run; each there once."""
    lines = (out / "rows.jsonl").read_text().splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]
    found = {(row["arm"], row["data"], row["seed"]): row for row in rows}
    assert len(found) == len(lines), "a row was written twice"
    return found
