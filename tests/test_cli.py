"""The command line: what it prints, how it fails, and that it leaves nothing half-written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ornstein.cli import COMMANDS, finite, main

OWN = str(Path(__file__).parent / "own_system.py")
QUIET = ("--quiet", "--no-picture")
OBS, ACT = 3, 1  # as Pendulum-v1


def recording(path: Path, *, episodes: int = 6, length: int = 12, obs: int = OBS, **changes) -> Path:
    """An NPZ file of random episodes; `changes` replace whole arrays."""
    source = np.random.default_rng(0)
    n = episodes * length
    ends = np.arange(n) % length == length - 1
    arrays = {
        "observations": source.normal(size=(n, obs)).astype(np.float32),
        "actions": source.uniform(-1, 1, size=(n, ACT)).astype(np.float32),
        "rewards": source.normal(size=n).astype(np.float32),
        "terminals": np.zeros(n, bool),
        "timeouts": ends,
    }
    np.savez(path, **(arrays | changes))
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ORNSTEIN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return str(recording(tmp_path_factory.mktemp("data") / "data.npz"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", OWN, "--data", data, "--out", str(out), *QUIET]) == 0
    return out


@pytest.fixture
def call(capsys):
    """Run a command line with --json: its exit code, its one JSON object, and what stood on standard error."""

    def run(*words: object) -> tuple[int, dict, str]:
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        out, err = capsys.readouterr()
        lines = out.splitlines()
        assert len(lines) == 1, f"not exactly one line on standard output: {out!r}"
        return code, json.loads(lines[0]), err

    return run


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


class TestHelp:
    def test_help_names_every_command(self, capsys):
        for words in ([], ["--help"], ["-h"], ["help"]):
            assert main(words) == 0
            out = capsys.readouterr().out
            assert all(name in out for name in COMMANDS)

    def test_version(self, capsys):
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("ornstein 0.")

    @pytest.mark.parametrize("name", [name for name in COMMANDS if name != "data"])
    def test_each_command_has_help(self, name, capsys):
        assert main([name, "--help"]) == 0
        assert f"usage: ornstein {name}" in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["info", "convert", "collect"])
    def test_each_data_command_has_help(self, name, capsys):
        assert main(["data", name, "--help"]) == 0
        assert f"usage: ornstein data {name}" in capsys.readouterr().out
        assert main(["data", "--help"]) == 0

    def test_training_help_shows_the_systems_own_settings(self, capsys):
        assert main(["train", "diffusion_ql", "--help"]) == 0
        out = capsys.readouterr().out
        assert "--eta" in out
        assert "weight of the Q term" in out
        assert "--resume" in out

    def test_help_is_a_json_object_too(self, call):
        assert "usage" in call("--help")[1]["help"]
        assert "usage" in call("eval", "--help")[1]["help"]


class TestAbout:
    def test_list(self, call, capsys):
        code, values, _ = call("list")
        assert code == 0
        assert {"diffuser", "diffusion_ql", "synther"} <= {system["name"] for system in values["systems"]}
        assert main(["list", "--tasks"]) == 0
        assert "hopper-medium (paper: 90.5 +- 4.6)" in capsys.readouterr().out

    def test_cite(self, call, capsys):
        code, values, _ = call("cite", "diffuser")
        assert (code, values["year"], values["arxiv"]) == (0, 2022, "2205.09991")
        assert main(["cite", "diffuser"]) == 0
        assert capsys.readouterr().out.startswith("@inproceedings{diffuser,")
        assert call("cite", OWN)[1]["year"] == 1988

    def test_doctor_names_what_is_missing_and_how_to_install_it(self, call, capsys, monkeypatch):
        from ornstein import doctor

        code, values, _ = call("doctor")
        assert code == 0
        assert values["packages"]["torch"] == torch.__version__
        assert values["torch"]["devices"][0]["name"] == "cpu"
        assert values["torch"]["threads"] == 1
        real = doctor.version
        monkeypatch.setattr(doctor, "version", lambda name: None if name in ("wandb", "safetensors") else real(name))
        code, values, _ = call("doctor")
        assert (code, values["ok"]) == (1, False)
        assert {"package": "wandb", "for": "wandb", "install": "pip install 'ornstein[wandb]'"} in values["missing"]
        assert main(["doctor"]) == 1
        out = capsys.readouterr().out
        assert "pip install 'ornstein[wandb]'" in out
        assert "safetensors          missing" in out

    def test_check_reports_each_contract_check(self, call):
        code, values, _ = call("check", OWN)
        assert (code, values["ok"], values["failed"]) == (0, True, 0)
        assert values["passed"] == len(values["checks"]) > 3


class TestTraining:
    def test_a_run_leaves_a_checkpoint_and_says_where(self, call, data, tmp_path):
        out = tmp_path / "run"
        code, values, err = call(
            "train", OWN, "--data", data, "--out", out, "--task", "noisy", "--steps", 20, "--lr", 0.5
        )
        assert code == 0, err
        assert values["runs"] == [str(out)]
        assert values["system"] == "own_system"
        config = json.loads((out / "checkpoints" / "last" / "config.json").read_text())
        assert config["config"]["jitter"] == 0.1
        assert config["config"]["lr"] == 0.5
        assert (out / "metrics.jsonl").exists()
        assert Path(values["pictures"][0]).read_bytes().startswith(b"\x89PNG")
        assert "20/20" in err

    def test_settings_are_validated_by_their_types(self, refused, data, tmp_path):
        words = ("train", OWN, "--data", data, "--out", tmp_path / "run")
        assert "--lr" in refused(*words, "--lr", "fast")
        assert "did you mean --lr" in refused(*words, "--lrr", 3)
        assert "--mode" in refused(*words, "--mode", "fastest")
        assert "unexpected 'more'" in refused(*words, "more")
        assert "--device quantum" in refused(*words, "--device", "quantum")
        assert "seeds" in refused(*words, "--seeds", 0)
        assert "steps = 0" in refused(*words, "--steps", 0)
        assert "validation" in refused(*words, "--validation", 2)
        assert not (tmp_path / "run").exists()

    def test_what_is_missing_or_unknown_is_named(self, refused, data, tmp_path):
        assert "--data" in refused("train", OWN, "--out", tmp_path / "run")
        assert "did you mean plain" in refused("train", OWN, "--data", data, "--out", tmp_path / "r", "--task", "plian")
        assert "did you mean diffuser" in refused("train", "diffusr", "--data", data, "--out", tmp_path / "r")
        assert "name a system" in refused("train")
        assert "comes first" in refused("train", "--data", data, OWN)
        assert "did you mean train" in refused("trian")
        assert "no such file" in refused("train", "./gone.py", "--data", data, "--out", tmp_path / "r")

    def test_an_interrupted_and_resumed_run_is_the_same_run(self, call, data, tmp_path):
        words = ("train", OWN, "--data", data, "--checkpoint-every", 10, *QUIET)
        assert call(*words, "--out", tmp_path / "a")[0] == 0
        assert call(*words, "--out", tmp_path / "b", "--steps", 10)[0] == 0
        code, _, err = call(*words, "--out", tmp_path / "b", "--resume")
        assert code == 0, err
        ends = [load_file(tmp_path / x / "checkpoints" / "last" / "weights.safetensors") for x in "ab"]
        assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])

    def test_several_seeds_train_into_directories_of_their_own(self, call, data, tmp_path):
        words = ("train", OWN, "--data", data, "--steps", 5, *QUIET)
        code, values, err = call(*words, "--out", tmp_path / "many", "--seed", 3, "--seeds", 2)
        assert code == 0, err
        assert values["seeds"] == [3, 4]
        assert call(*words, "--out", tmp_path / "one", "--seed", 4)[0] == 0
        many = load_file(tmp_path / "many" / "seed-4" / "checkpoints" / "last" / "weights.safetensors")
        one = load_file(tmp_path / "one" / "checkpoints" / "last" / "weights.safetensors")
        assert all(torch.allclose(many[name], one[name], atol=1e-5) for name in one)

    def test_fine_tuning_starts_from_the_weights_of_a_run(self, call, data, trained, tmp_path):
        words = ("train", OWN, "--data", data, "--out", tmp_path / "fine", "--init-from", trained, *QUIET)
        assert call(*words, "--steps", 1, "--lr", 1e-12)[0] == 0
        old, new = (
            load_file(run / "checkpoints" / "last" / "weights.safetensors") for run in (trained, tmp_path / "fine")
        )
        assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in old)

    def test_a_directory_that_holds_another_run_is_refused(self, refused, data, trained, tmp_path):
        assert "another run" in refused("train", OWN, "--data", data, "--out", trained)
        (tmp_path / "file").write_text("x")
        assert "is a file" in refused("train", OWN, "--data", data, "--out", tmp_path / "file")
        assert "no run to resume" in refused("train", OWN, "--data", data, "--out", tmp_path / "new", "--resume")
        assert "was" in refused("train", OWN, "--data", data, "--out", trained, "--resume", "--lr", 3.0)

    def test_a_loss_that_explodes_ends_the_run_and_names_phase_and_step(self, call, data, tmp_path):
        code, values, err = call("train", OWN, "--data", data, "--out", tmp_path / "run", "--lr", "1e30", "--steps", 50)
        assert code == 1
        assert "policy" in values["error"]
        assert "step" in values["error"]
        assert "Traceback" not in err


def broken(path: Path, kind: str) -> Path:
    """A data file that cannot be used, in one of many ways."""
    rows = 72
    if kind == "missing":
        return path / "none.hdf5"
    if kind in ("empty", "text"):
        file = path / "file.hdf5"
        file.write_text("" if kind == "empty" else "these are no data\n" * 50)
        return file
    if kind == "truncated":
        whole = path / "whole.h5"
        assert main(["data", "convert", str(recording(path / "whole.npz")), str(whole)]) == 0
        cut = path / "cut.h5"
        cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        return cut
    obs = np.zeros((rows, OBS), np.float32)
    if kind in ("nan", "infinite"):
        obs[17, 1] = np.nan if kind == "nan" else np.inf
        return recording(path / "data.npz", observations=obs)
    changes: dict = {
        "rows": {"actions": np.zeros((rows - 1, ACT), np.float32)},
        "flat actions": {"actions": np.zeros(rows, np.float32)},
        "strings": {"rewards": np.array(["x"] * rows)},
    }
    return recording(path / "data.npz", **changes[kind])


KINDS = ["missing", "empty", "text", "truncated", "nan", "infinite", "rows", "flat actions", "strings"]


class TestBadData:
    @pytest.mark.parametrize("kind", KINDS)
    def test_one_line_names_the_file_and_nothing_is_written(self, kind, refused, tmp_path):
        file, out = broken(tmp_path, kind), tmp_path / "run"
        message = refused("train", OWN, "--data", file, "--out", out, *QUIET)
        assert file.name in message
        assert not out.exists()
        target = tmp_path / "converted.npz"
        refused("data", "convert", file, target)
        assert not target.exists()

    def test_episodes_shorter_than_the_horizon(self, refused, tmp_path):
        file, out = tmp_path / "short.npz", tmp_path / "run"
        words = ["--env", "PointMaze_UMaze-v3", "--policy", "waypoint", "--max-steps", "5", "--episodes", "3"]
        assert main(["data", "collect", *words, "--out", str(file)]) == 0
        changes = ("--horizon", 32, "--steps", 1, *QUIET)
        message = refused("train", "diffuser", "--task", "maze-fast", "--data", file, "--out", out, *changes)
        assert "horizon" in message
        assert not out.exists()


def damaged(run: Path, copy: Path, kind: str) -> Path:
    """A copy of a run whose last checkpoint is damaged in one of many ways."""
    import shutil

    shutil.copytree(run, copy, symlinks=True)
    folder = copy / "checkpoints" / "last"
    weights, config = folder / "weights.safetensors", folder / "config.json"
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    if kind == "missing tensor":
        del tensors[name]
    elif kind == "extra tensor":
        tensors["more"] = torch.zeros(1)
    elif kind == "misshapen tensor":
        tensors[name] = torch.zeros(7)
    elif kind == "newer format":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"format": 99}))
    elif kind == "no json":
        config.write_text("{")
    if kind.endswith("tensor"):
        save_file(tensors, weights)
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-4])
    if kind == "no weights":
        weights.unlink()
    return copy


class TestUse:
    def test_evaluation_has_the_promised_keys(self, call, trained):
        words = ("eval", trained, "--system", OWN, "--env", "Pendulum-v1", "--episodes", 2, "--max-steps", 5)
        code, values, err = call(*words)
        assert code == 0, err
        keys = {
            "system",
            "env",
            "episodes",
            "return_mean",
            "return_std",
            "score",
            "length_mean",
            "seconds",
            "act_ms_median",
        }
        assert keys <= values.keys()
        assert (values["system"], values["episodes"], values["length_mean"]) == ("own_system", 2, 5)
        assert values["return_mean"] == call(*words)[1]["return_mean"] != call(*words, "--seed", 1)[1]["return_mean"]

    def test_seeds_are_evaluated_one_by_one_and_together(self, call, data, tmp_path):
        out = tmp_path / "many"
        assert call("train", OWN, "--data", data, "--out", out, "--steps", 5, "--seeds", 2, *QUIET)[0] == 0
        words = ("--system", OWN, "--env", "Pendulum-v1", "--episodes", 2, "--max-steps", 5)
        code, values, err = call("eval", out, *words)
        assert code == 0, err
        alone = [call("eval", out / f"seed-{i}", *words)[1]["return_mean"] for i in range(2)]
        assert [run["return_mean"] for run in values["runs"]] == alone
        assert values["return_mean"] == pytest.approx(sum(alone) / 2)
        assert values["return_seed_std"] == pytest.approx(abs(alone[0] - alone[1]) / 2)
        within = sum(run["return_std"] ** 2 for run in values["runs"]) / 2
        assert values["return_std"] == pytest.approx((within + values["return_seed_std"] ** 2) ** 0.5)
        assert (values["episodes"], values["seeds"]) == (4, 2)

    def test_training_online_makes_its_own_data(self, call, tmp_path, refused):
        words = ("train", "sac", "--out", tmp_path / "online", "--steps", 5, "--warmup", 5, "--width", 8, *QUIET)
        code, values, err = call(*words, "--env", "Pendulum-v1")
        assert code == 0, err
        assert (values["env"], values["data"], values["data_hash"]) == ("Pendulum-v1", None, None)
        assert call("eval", tmp_path / "online", "--env", "Pendulum-v1", "--episodes", 1, "--max-steps", 5)[0] == 0
        assert "--env ENV_ID" in refused("train", "sac", "--out", tmp_path / "nothing", "--steps", 5)

    def test_environments_that_do_not_fit_are_refused(self, refused, trained):
        words = ("eval", trained, "--system", OWN, "--episodes", 1)
        assert "size 11" in refused(*words, "--env", "Hopper-v5")
        assert "Pendulum-v1" in refused(*words, "--env", "Pendulm-v1")
        assert "no_such_module" in refused(*words, "--env", "no_such_module:Env-v0")
        assert "--episodes 0" in refused("eval", trained, "--system", OWN, "--env", "Pendulum-v1", "--episodes", 0)

    @pytest.mark.parametrize(
        "kind",
        ["missing tensor", "extra tensor", "misshapen tensor", "newer format", "no json", "truncated", "no weights"],
    )
    def test_damaged_checkpoints_are_refused_by_name(self, kind, refused, trained, tmp_path):
        run = damaged(trained, tmp_path / "copy", kind)
        message = refused("eval", run, "--system", OWN, "--env", "Pendulum-v1")
        assert str(run) in message

    def test_runs_that_are_not_there_or_cannot_do_it_are_refused(self, refused, trained, tmp_path):
        assert "no such directory" in refused("eval", tmp_path / "gone", "--env", "Pendulum-v1")
        assert "no checkpoint" in refused("eval", tmp_path, "--env", "Pendulum-v1")
        assert "no checkpoint '00000007'" in refused(
            "eval", trained, "--system", OWN, "--env", "Pendulum-v1", "--step", 7
        )
        assert "outside of the package" in refused("eval", trained, "--env", "Pendulum-v1")
        assert "does not plan" in refused("plan", trained, "--system", OWN, "--start", 1, 2, 3)
        out = tmp_path / "x.npz"
        assert "does not generate" in refused("synthesize", trained, "--system", OWN, "--n", 5, "--out", out)
        assert "--n 0" in refused("synthesize", trained, "--system", OWN, "--n", 0, "--out", out)
        assert not out.exists()


class TestPlan:
    @pytest.fixture(scope="class")
    def planner(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("planner")
        file, out = folder / "maze.npz", folder / "run"
        words = ["--env", "PointMaze_UMaze-v3", "--policy", "waypoint", "--steps", "400", "--out", str(file)]
        assert main(["data", "collect", *words]) == 0
        small = ["--task", "maze-fast", "--horizon", "8", "--width", "8", "--multipliers", "1", "2", "--calls", "4"]
        assert main(["train", "diffuser", "--data", str(file), "--out", str(out), "--steps", "2", *QUIET, *small]) == 0
        return out

    def test_plans_hold_start_and_goal(self, call, planner, tmp_path):
        words = ("plan", planner, "--start", -1, 1, 0, 0, "--goal", 1, 1)
        code, values, err = call(*words)
        assert code == 0, err
        assert np.allclose(values["obs"][0][0], [-1, 1, 0, 0], atol=1e-4)
        assert np.allclose(values["obs"][0][-1][:2], [1, 1], atol=1e-4)
        assert call(*words)[1]["obs"] == values["obs"]
        assert call(*words, "--n", 2, "--out", tmp_path / "p.npz")[0] == 0
        with np.load(tmp_path / "p.npz") as file:
            assert file["obs"].shape == (2, 8, 4)
            assert file["action"].shape == (2, 8, 2)
        assert call(*words, "--out", tmp_path / "p.json")[0] == 0
        assert json.loads((tmp_path / "p.json").read_text())["obs"] == values["obs"]

    def test_plans_from_an_environment_are_drawn_in_its_maze(self, call, planner, tmp_path):
        out = tmp_path / "plan.png"
        code, values, err = call("plan", planner, "--env", "PointMaze_UMaze-v3", "--n", 2, "--out", out)
        assert code == 0, err
        assert len(values["start"]) == 2
        assert out.read_bytes().startswith(b"\x89PNG")

    def test_what_cannot_be_planned_or_written_is_refused(self, refused, planner, tmp_path):
        assert "--start has 0 entries" in refused("plan", planner)
        assert "--goal has 1 entries" in refused("plan", planner, "--start", 0, 0, 0, 0, "--goal", 1)
        assert "suffix '.gif'" in refused("plan", planner, "--out", tmp_path / "x.gif")
        assert "only plans in mazes" in refused("plan", planner, "--start", 0, 0, 0, 0, "--out", tmp_path / "x.png")
        assert "does not exist" in refused("plan", planner, "--out", tmp_path / "gone" / "x.npz")
        assert "size 3" in refused("plan", planner, "--env", "Pendulum-v1")


class TestData:
    def test_a_data_set_goes_through_every_format(self, call, refused, data, tmp_path):
        here = call("data", "info", data)[1]
        assert (here["episodes"], here["steps"], here["obs"], here["act"]) == (6, 72, OBS, ACT)
        assert call("data", "convert", data, tmp_path / "a.h5")[0] == 0
        there = call("data", "info", tmp_path / "a.h5")[1]
        assert there["hash"] == here["hash"]
        assert "--cut-unknown" in refused("data", "convert", tmp_path / "a.h5", tmp_path / "minari")
        code, values, err = call("data", "convert", tmp_path / "a.h5", tmp_path / "minari", "--cut-unknown")
        assert code == 0, err
        assert values["data"]["steps"] == 66
        assert call("data", "info", tmp_path / "minari")[1]["hash"] == values["data"]["hash"]

    def test_collecting(self, call, refused, tmp_path):
        out = tmp_path / "p.npz"
        code, values, err = call(
            "data", "collect", "--env", "Pendulum-v1", "--episodes", 1, "--max-steps", 20, "--out", out
        )
        assert code == 0, err
        assert (values["data"]["steps"], values["data"]["obs"], values["data"]["act"]) == (20, 3, 1)
        words = ("data", "collect", "--env", "Pendulum-v1")
        assert "exists already" in refused(*words, "--steps", 5, "--out", out)
        assert "--episodes N or --steps N" in refused(*words, "--out", tmp_path / "q.npz")
        assert "PointMaze only" in refused(*words, "--steps", 5, "--policy", "waypoint", "--out", tmp_path / "q.npz")
        assert "neither random" in refused(*words, "--steps", 5, "--policy", "expert", "--out", tmp_path / "q.npz")
        assert "suffix '.csv'" in refused(*words, "--steps", 5, "--out", tmp_path / "q.csv")
        assert not list(tmp_path.glob("q*"))

    def test_a_trained_policy_records(self, call, refused, trained, tmp_path):
        message = refused(
            "data", "collect", "--env", "Pendulum-v1", "--steps", 5, "--policy", trained, "--out", tmp_path / "q.npz"
        )
        assert "outside of the package" in message

    def test_a_synthesizer_writes_a_data_set_that_reads_back(self, call, data, tmp_path):
        run, out = tmp_path / "run", tmp_path / "synthetic.h5"
        small = ("--task", "fast", "--width", 16, "--blocks", 1, "--calls", 3, "--steps", 2, *QUIET)
        code, _, err = call("train", "synther", "--data", data, "--out", run, *small)
        assert code == 0, err
        code, values, err = call("synthesize", run, "--n", 50, "--out", out)
        assert code == 0, err
        assert call("data", "info", out)[1]["steps"] == values["data"]["steps"] == 50

    def test_unknown_data_commands(self, refused):
        assert "did you mean info" in refused("data", "inof")
        assert "info | convert | collect" in refused("data")


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
