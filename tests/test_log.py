"""metrics.jsonl, the optional sinks and the progress line."""

import json
import math
import sys

import pytest
import torch

from ornstein.fit.means import Means
from ornstein.log import Log, Progress, _clock, read_lines
from ornstein.update.descent import Reading


def test_lines_are_appended_and_cut_back_to_a_step(tmp_path):
    log = Log(tmp_path)
    for step in (5, 10, 15):
        log.write(step, {"loss": step / 2})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 5, "loss": 2.5}\n{"step": 10, "loss": 5.0}\n{"step": 15, "loss": 7.5}\n'
    )
    again = Log(tmp_path, resume_at=10)
    again.write(11, {"loss": 0.0})
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [5, 10, 11]
    Log(tmp_path)
    assert read_lines(tmp_path / "metrics.jsonl") == []


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    Log(tmp_path).write(5, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [5]
    Log(tmp_path, resume_at=6).write(7, {"loss": 2.0})
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [5, 7]


def test_numbers_that_json_lacks_become_null(tmp_path):
    Log(tmp_path).write(1, {"a": math.nan, "b": math.inf, "c": 1.0})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "a": None, "b": None, "c": 1.0}


def test_tensorboard_has_the_same_scalars(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Log(tmp_path, ("tensorboard",))
    log.write(5, {"a/loss": 2.0})
    log.write(10, {"a/loss": 1.0})
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("a/loss")] == [(5, 2.0), (10, 1.0)]


def test_a_missing_sink_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"pip install 'ornstein\[wandb\]'"):
        Log(tmp_path, ("wandb",))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'ornstein\[tensorboard\]'"):
        Log(tmp_path, ("tensorboard",))


def shown(monkeypatch, capsys, *, live: bool, every: float = 10.0) -> str:
    """What is printed for thirty steps, one a second."""
    clock = iter(range(1000))
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: live, raising=False)
    progress = Progress("train", 30, every=every)
    for step in range(1, 31):
        now[0] = float(next(clock))
        if progress.due(step):
            progress.show(step, 0.5)
    progress.close()
    return capsys.readouterr().err


def test_plain_lines_come_every_ten_seconds_and_at_the_end(monkeypatch, capsys):
    assert shown(monkeypatch, capsys, live=False).splitlines() == [
        "train  11/30  loss 0.5  1.0 steps/s  0:19 left",
        "train  21/30  loss 0.5  1.0 steps/s  0:09 left",
        "train  30/30  loss 0.5  1.0 steps/s  0:00 left",
    ]


def test_a_terminal_has_one_line_that_is_rewritten(monkeypatch, capsys):
    text = shown(monkeypatch, capsys, live=True)
    assert text.count("\r\x1b[2Ktrain") == 29  # the first step starts the clock
    assert text.count("\n") == 1
    assert text.endswith("train  30/30  loss 0.5  1.0 steps/s  0:00 left\n")


def test_long_times_have_hours():
    assert (_clock(7384.0), _clock(65.0), _clock(float("inf"))) == ("2:03:04", "1:05", "?")


def test_a_quiet_progress_shows_nothing():
    progress = Progress("train", 2, show=False)
    assert not progress.due(1)
    assert not progress.due(2)


def reading(*values: list[float]) -> Reading:
    return Reading(("loss", "norm"), torch.tensor(values))


def test_means_by_hand():
    means = Means()
    assert math.isnan(means.loss())
    means.add({"a": reading([1.0, 2.0], [0.0, 4.0]), "b": reading([5.0, 5.0], [1.0, 1.0])})
    means.add({"a": reading([3.0, 6.0], [0.0, 8.0])})
    assert means.loss() == pytest.approx((2.0 + 4.0) / 2)
    assert means.take() == {"a/loss": [2.0, 4.0], "a/norm": [0.0, 6.0], "b/loss": [5.0, 5.0], "b/norm": [1.0, 1.0]}
    assert means.take() == {}


def test_means_do_not_keep_what_they_were_given():
    """A replayed graph overwrites its readings in place."""
    means, values = Means(), reading([1.0], [1.0])
    means.add({"a": values})
    values.values.fill_(9.0)
    assert means.take() == {"a/loss": [1.0], "a/norm": [1.0]}


def test_the_shown_loss_is_that_of_the_living():
    means = Means()
    means.add({"a": reading([1.0, math.nan], [0.0, 0.0])})
    assert means.loss() == 1.0


def test_means_go_on_from_their_state():
    means = Means()
    means.add({"a": reading([1.0, 2.0], [0.0, 4.0])})
    states = [means.state(0), means.state(1)]
    again = Means()
    again.load_state([sums for sums, _ in states], json.loads(json.dumps(states[0][1])), torch.device("cpu"))
    for one in (means, again):
        one.add({"a": reading([3.0, 6.0], [0.0, 8.0])})
    assert means.take() == again.take() == {"a/loss": [2.0, 4.0], "a/norm": [0.0, 6.0]}
