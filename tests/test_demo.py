"""The demonstration, small: every arm runs on the same pairs, and what it promises to write is written."""

import json

from ornstein.demo import Settings, main

SMALL = Settings(maze="umaze", record_steps=2500, pairs=3, max_steps=250, train_steps=3)
KEYS = {
    "success_rate", "straight_line_success", "untrained_success", "steps_mean", "controller_steps_mean", "score",
    "plan_ms_median", "train_seconds", "seconds",
}  # fmt: skip


def test_it_writes_its_summary_and_pictures_and_repeats_itself(tmp_path, capsys):
    found = [main(tmp_path / name, settings=SMALL) for name in ("one", "two")]
    assert json.loads((tmp_path / "one" / "summary.json").read_text()) == found[0]
    assert found[0].keys() >= KEYS
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"summary.json", "plans.png", "plan.gif"}
    timed = {"plan_ms_median", "train_seconds", "seconds"}
    assert {k: v for k, v in found[0].items() if k not in timed} == {
        k: v for k, v in found[1].items() if k not in timed
    }
    assert "success" in capsys.readouterr().err


def test_its_defaults_are_a_plan_of_a_length_with_the_rest_at_the_goal():
    """Every recorded episode has room for a plan, also where the ride was short."""
    from ornstein.systems.planners.diffuser import PRESETS

    preset = PRESETS[Settings.preset]
    assert (preset.horizon - 1) * preset.stride < Settings.stay
    assert preset.horizon * preset.stride < Settings.max_steps
    assert Settings.ratio >= 1.5
