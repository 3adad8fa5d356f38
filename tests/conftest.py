"""What all tests share: one torch thread per process, first weights that do not depend on what ran before, `call`."""

import json
import os
import signal
import threading

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import pytest
import torch

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background ignores it


torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_weights_whatever_ran_before():
    """Networks draw their first weights from torch's global generator: seed it for each test."""
    torch.manual_seed(0)


@pytest.fixture
def call(capsys):
    """Run a command line with --json: its exit code, its one JSON object, and what stood on standard error."""

    from ornstein.cli import main  # here: the shape checker hooks into imports after this file is read

    def run(*words: object) -> tuple[int, dict, str]:
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert len(lines) == 1, f"not exactly one line on standard output: {out!r}"
        return code, json.loads(lines[0]), err

    return run
