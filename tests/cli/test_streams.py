"""Standard output and error, exit codes, Ctrl-C, full disks: nothing is half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

from ornstein.cli import finite, main
from recording import OWN, QUIET


class TestStreams:
    def test_numbers_without_a_word_in_json_become_null(self):
        assert finite({"a": [float("nan"), 1.0], "b": (float("-inf"), "x", True)}) == {
            "a": [None, 1.0],
            "b": [None, "x", True],
        }

    def test_an_internal_failure_shows_where_it_came_from(self, call, monkeypatch):
        monkeypatch.setattr("ornstein.catalogue.entries", lambda: 1 / 0)
        code, values, err = call("list")
        assert (code, values["error"]) == (1, "ZeroDivisionError: division by zero")
        assert "Traceback" in err

    def test_tracebacks_of_users_errors_are_shown_when_asked_for(self, capsys):
        assert main(["cite", "nothing_at_all", "--traceback"]) == 2
        assert "Traceback" in capsys.readouterr().err

    def test_ctrl_c_is_130(self, call, monkeypatch):
        def interrupted() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("ornstein.catalogue.entries", interrupted)
        code, values, _ = call("list")
        assert (code, values) == (130, {"error": "interrupted"})

    def test_a_package_that_is_not_installed_is_no_failure_of_ours(self, call, monkeypatch):
        def needs() -> None:
            raise ModuleNotFoundError("No module named 'minari'", name="minari")

        monkeypatch.setattr("ornstein.catalogue.entries", needs)
        code, values, _ = call("list")
        assert code == 2
        assert "ornstein doctor" in values["error"]

    def test_a_disk_that_is_full_leaves_nothing_half_written(self, refused, data, tmp_path):
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        out = tmp_path / "out.npz"
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, limit[1]))
        try:
            message = refused("data", "convert", data, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert "space" in message
        assert not list(tmp_path.iterdir())

    def test_a_full_disk_during_training_leaves_no_broken_checkpoint(self, refused, data, tmp_path):
        assert main(["data", "info", data]) == 0  # into the cache
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        try:
            message = refused("train", OWN, "--data", data, "--out", tmp_path / "run", *QUIET)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert "space" in message
        assert not (tmp_path / "run").exists()


def start(*words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "ornstein", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_while_training_leaves_a_checkpoint_to_resume_from(data, tmp_path):
    out = tmp_path / "run"
    process = start("train", OWN, "--data", data, "--out", out, "--steps", 10_000_000, "--log-every", 10, "--json")
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    printed, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(printed) == {"error": "interrupted"}
    assert "Traceback" not in err
    assert (out / "checkpoints" / "last" / "weights.safetensors").exists()


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m ornstein list --tasks | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
