"""`ornstein bench` in this process: rows, skipping, failures, and what is refused."""

import json
from pathlib import Path

import pytest

from bench.kill import OWN, recording, results
from ornstein.bench.measure import cadence, held
from ornstein.bench.rows import read
from ornstein.cli import main

BROKEN = """
_train = train
def train(config, episodes, run):
    if run.seeds == (1,) and not PATCH.exists():
        raise RuntimeError("seed one is not liked")
    return _train(config, episodes, run)
SYSTEM = System(SOURCE, Config, PRESETS, TARGETS, Cloning, train)
"""


@pytest.fixture
def call(capsys):
    """A command line with --json: its exit code, its object, and standard error."""

    def run(*words: object) -> tuple[int, dict, str]:
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 1, out
        return code, json.loads(out), err

    return run


def small(folder: Path, *words: object) -> tuple[object, ...]:
    data = recording(folder / "one.npz", 0)
    protocol = ("--episodes", 2, "--max-steps", 5, "--steps", 6)
    return ("bench", *words, "--data", data, "--env", "Pendulum-v1", *protocol, "--out", folder / "out")


def test_rows_hold_what_they_promise_and_are_made_once(call, tmp_path):
    words = small(tmp_path, OWN, "--seeds", 2, "--score-every", 2, "--fqe", 3)
    code, values, err = call(*words)
    assert (code, values["made"], values["there"], values["failed"]) == (0, 2, 0, {}), err
    first, second = read(tmp_path / "out" / "rows.jsonl")
    keys = "arm system preset config_hash data data_hash env versions protocol seed steps return_mean return_std score "
    keys += "act_ms_median train_seconds eval_seconds device torch ornstein time fqe best_return_mean best_step run"
    assert set(keys.split()) <= first.keys()
    assert (first["arm"], first["data"], first["steps"], first["total_steps"]) == ("own_system", "one", 6, 6)
    assert first["protocol"]["episodes"] == 2 and first["protocol"]["eval_seed"] == "1000 + seed"
    assert first["versions"]["gymnasium"] and first["best_of"] == 3
    assert first["best_return_mean"] >= first["return_mean"]
    assert (first["config_hash"], first["seed"]) == (second["config_hash"], 0) and second["seed"] == 1
    run = tmp_path / "out" / first["run"]
    assert (run / "checkpoints" / "last" / "weights.safetensors").exists()
    assert not list(run.glob("checkpoints/*/training_state*"))
    evaluated = call(
        "eval", run, "--system", OWN, "--env", "Pendulum-v1", "--episodes", 2, "--max-steps", 5, "--seed", 1000,
        "--n-envs", 2,
    )[1]  # fmt: skip
    assert evaluated["return_mean"] == first["return_mean"]
    code, values, _ = call(*words)
    assert (code, values["made"], values["there"]) == (0, 0, 2)


def test_a_trained_run_serves_another_protocol_and_rows_of_both_are_kept(call, tmp_path):
    assert call(*small(tmp_path, OWN, "--seeds", 1))[0] == 0
    before = read(tmp_path / "out" / "rows.jsonl")[0]
    finished = tmp_path / "out" / before["run"] / "finished.json"
    stamp = finished.stat().st_mtime_ns
    assert call(*small(tmp_path, OWN, "--seeds", 1, "--fqe", 3))[1]["made"] == 1
    assert finished.stat().st_mtime_ns == stamp
    rows = read(tmp_path / "out" / "rows.jsonl")
    assert len({row["config_hash"] for row in rows}) == 2
    assert rows[0]["return_mean"] == rows[1]["return_mean"]


def test_a_failure_is_named_and_lets_the_others_go_on_and_is_tried_again(call, tmp_path):
    mended = tmp_path / "mended"
    own = tmp_path / "broken.py"
    text = BROKEN.replace("PATCH", f"__import__('pathlib').Path({str(mended)!r})")
    own.write_text(Path(OWN).read_text() + text)
    words = small(tmp_path, own, "--seeds", 3)
    code, values, err = call(*words)
    assert (code, values["made"]) == (1, 2)
    assert list(values["failed"]) == ["broken on one, seed 1"]
    assert "RuntimeError: seed one is not liked" in values["error"]
    assert "FAILED" in err and err.count("error: ") == 1
    (file,) = (tmp_path / "out" / "errors").glob("*.txt")
    assert "seed one is not liked" in file.read_text() and "Traceback" in file.read_text()
    mended.touch()
    code, values, _ = call(*words)
    assert (code, values["made"], values["there"]) == (0, 1, 2)
    assert not file.exists()
    assert len(results(tmp_path / "out")) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("bench", "td3_bc"), "name at least one data set"),
        (("bench", "td3_bc", "--data", "x.npz"), "no such file"),
        (("bench", "td3_bc", "--data", "hopper-replay"), "ORNSTEIN_DATA"),
        (("bench", "--recipe", "d4rl"), "unknown recipe"),
        (("bench", "td3_bc", "--data", "DATA"), "--env"),
        (("bench", "td3_bc", "--data", "DATA", "--env", "Hopper-v5"), "sizes 3 and 1"),
        (("bench", "td3_bc", "--data", "DATA", "DATA", "--env", "Pendulum-v1"), "two data sets"),
        (("bench", "td3_bc", "--data", "DATA", "--env", "a", "b"), "2 environments for 1"),
        (("bench", "--data", "DATA", "--env", "Pendulum-v1"), "at least one system"),
        (("bench", "synther", "--data", "DATA", "--env", "Pendulum-v1"), "does not act"),
        (("bench", "td3_bc", "--data", "DATA", "--env", "Pendulum-v1", "--workers", "0"), "--workers 0"),
        (("bench", "td3_bc", "--data", "DATA", "--env", "Pendulum-v1", "--steps", "0"), "--steps 0"),
        (("bench", "td3_bc", "--data", "DATA", "--env", "Pendulum-v1", "--episodes", "0"), "episodes=0"),
        (("report", "nowhere"), "no such directory"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_is_made(call, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    data = recording(tmp_path / "one.npz", 0)
    code, values, err = call(*(data if word == "DATA" else word for word in words))
    assert code == 2, err
    assert told in values["error"] and "Traceback" not in err
    assert not (tmp_path / "bench").exists()


def test_two_benches_do_not_write_the_same_rows(call, tmp_path):
    words = small(tmp_path, OWN, "--seeds", 1)
    (tmp_path / "out").mkdir()
    with held(tmp_path / "out" / ".lock"):
        code, values, _ = call(*words)
    assert code == 2 and "another bench" in values["error"]


def test_recipes_are_listed(call):
    assert "d4rl-locomotion" in call("bench", "--recipe", "list")[1]["recipes"]


def test_a_checkpoint_every_tenth_of_the_training_at_most_ten_thousand_steps():
    assert [cadence(steps) for steps in (1, 5, 15, 10_000, 2_000_000)] == [1, 1, 2, 1000, 10_000]
