"""Settings of all tests: one torch thread per process, and weights that do not depend on which tests ran before."""

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
