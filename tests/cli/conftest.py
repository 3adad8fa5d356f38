"""What the tests of the command line share: a recording, a run trained on it, and calls whose answers are checked."""

from pathlib import Path

import pytest

from ornstein.cli import main
from recording import OWN, QUIET, recording


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ORNSTEIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="package")
def data(tmp_path_factory) -> str:
    return str(recording(tmp_path_factory.mktemp("data") / "data.npz"))


@pytest.fixture(scope="package")
def trained(tmp_path_factory, data) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", OWN, "--data", data, "--out", str(out), *QUIET]) == 0
    return out


@pytest.fixture
def refused(call):
    """Run a command line that must fail by the user's fault, and return its one-line message."""

    def run(*words: object) -> str:
        code, values, err = call(*words)
        errors = [line for line in err.splitlines() if line.startswith("error: ")]
        assert code == 2, f"exit code {code}: {err}"
        assert len(errors) == 1
        assert "Traceback" not in err
        assert errors[0] == f"error: {values['error']}"
        return values["error"]

    return run
