import json

import numpy as np
import pytest
from PIL import Image

from ornstein.view.animate import Beat, Scene, animate_plans, timeline
from ornstein.view.curves import draw_curves, read_metrics, smooth
from ornstein.view.plot import Panel, draw_plans
from ornstein.view.style import GOAL, PAPER, RIDE, START, WALL

BOXES = np.array([[x, y, x + 1, y + 1] for x in range(5) for y in range(5) if x in (0, 4) or y in (0, 4)], float)
PLAN = np.linspace([1.5, 1.5], [3.5, 3.5], 9)


def share(picture, color, tolerance=12):
    """The share of a picture's pixels that have a colour."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    pixels = np.asarray(picture.convert("RGB"), int)
    return float((np.abs(pixels - wanted).max(-1) <= tolerance).mean())


def test_panels_show_walls_ends_plan_and_ride(tmp_path):
    panel = Panel((1.5, 1.5), (3.5, 3.5), (PLAN, PLAN + 0.1), PLAN - 0.2, "12 steps")
    with Image.open(
        draw_plans(BOXES, [panel] * 5, tmp_path / "new" / "plans.png", title="Plans", note="5 of 5")
    ) as image:
        width, height = image.size
        assert width > height > 600
        assert share(image, WALL) > 0.1 and share(image, PAPER) > 0.2
        for color in (GOAL, START, RIDE):
            assert share(image, color) > 1e-4
    with Image.open(draw_plans(BOXES, [panel._replace(ride=None)], tmp_path / "one.png")) as alone:
        assert share(alone, RIDE) < share(image, RIDE) + 1e-3 and alone.size[0] < width


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no panels"):
        draw_plans(BOXES, [], tmp_path / "none.png")
    with pytest.raises(ValueError, match="no scenes"):
        animate_plans(BOXES, [], tmp_path / "none.gif")
    assert not list(tmp_path.iterdir())


def test_the_timeline_goes_from_noise_to_plan_to_ride():
    beats = list(timeline(8, 4, 3))
    assert len(beats) == 1 + 4 + 3
    assert beats[0] == Beat(0.0, 0.0, 500) and beats[4].call == 8.0 and beats[4].ride == 0.0
    assert beats[-1].call == 8.0 and beats[-1].ride == 1.0 and beats[-1].stay > beats[-2].stay
    calls = np.diff([beat.call for beat in beats[:5]])
    assert (calls > 0).all() and (np.diff(calls) < 0).all()


def test_the_animation_starts_with_noise_and_ends_with_the_ball_at_the_goal(tmp_path):
    noise = np.random.default_rng(0).normal(2.5, 1.0, PLAN.shape)
    scene = Scene((1.5, 1.5), (3.5, 3.5), np.stack([noise, (noise + PLAN) / 2, PLAN]), PLAN)
    out = animate_plans(BOXES, [scene, scene], tmp_path / "plan.gif", title="Plan", frames=(4, 5))
    with Image.open(out) as movie:
        assert movie.n_frames == 10 and movie.info["loop"] == 0
        assert share(movie, RIDE) == 0.0
        movie.seek(9)
        assert share(movie, RIDE) > 0.003
    with pytest.raises(ValueError, match=r"traces of \[2, 3\]"):
        animate_plans(BOXES, [scene, scene._replace(trace=scene.trace[1:])], out)


def lines(seed, n=40):
    source = np.random.default_rng(seed)
    return [{"step": 10 * i, "actor/loss": 10.0 * 0.8**i + 0.01 * source.random(), "time/rate": 5.0} for i in range(n)]


def test_curves_are_read_and_drawn_one_line_a_seed(tmp_path):
    files = []
    for seed in (0, 1):
        files.append(tmp_path / f"seed-{seed}" / "metrics.jsonl")
        files[-1].parent.mkdir()
        text = "".join(
            json.dumps(line) + "\n" for line in [*lines(seed), {"step": 400, "actor/loss": float("nan"), "note": "x"}]
        )
        files[-1].write_text(text + '{"step": 410, "actor/lo')
    curves = read_metrics(files[0])
    assert set(curves) == {"actor/loss", "time/rate"}
    np.testing.assert_array_equal(curves["time/rate"][0], np.arange(0, 400, 10))
    assert curves["actor/loss"][1][0] == pytest.approx(10.0, abs=0.02)
    with Image.open(draw_curves(files, tmp_path / "curves.png", title="Two seeds")) as picture:
        assert picture.size[0] > 300
    with pytest.raises(ValueError, match="has not logged anything"):
        draw_curves(files, tmp_path / "none.png", skip=("actor/", "time/"))


def test_running_means_by_hand():
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0, 6.0, 1.0]), share=0.5), [1.5, 3.0, 3.0, 3.5])
    np.testing.assert_array_equal(smooth(np.array([1.0, 5.0]), share=0.05), [1.0, 5.0])


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install 'ornstein\[view\]'"):
        draw_plans(BOXES, [Panel((1.5, 1.5), (3.5, 3.5), (PLAN,))], tmp_path / "x.png")
