"""Pictures of comparisons: drawn, narrow, gaps shown, one colour per name."""

import numpy as np
from PIL import Image

from ornstein.view.compare import Band, Reach, draw_intervals, draw_learning, draw_profiles, draw_scatter
from ornstein.view.style import PLAN, RIDE, SERIES
from view.test_view import share

X = np.linspace(0.0, 1000.0, 20)


def band(height):
    return Band(X, height + X / 1000, height + X / 1000 - 0.2, height + X / 1000 + 0.2)


def test_intervals_are_drawn_and_gaps_have_no_dot(tmp_path):
    order = ("one", "two")
    full = {"one": Reach(1.0, 0.5, 1.5), "two": Reach(2.0, 1.8, 2.5)}
    with Image.open(draw_intervals(full, order, tmp_path / "new" / "a.png", title="t", label="x", line=1.0)) as image:
        assert image.size[0] == 820 and share(image, PLAN) > 3e-4 and share(image, RIDE) > 3e-4
    with Image.open(draw_intervals(full | {"two": None}, order, tmp_path / "b.png", title="t", label="x")) as image:
        assert share(image, PLAN) > 3e-4 and share(image, RIDE) == 0


def test_a_name_has_the_same_colour_in_every_picture(tmp_path):
    order = ("gone", "here")
    files = [
        draw_intervals({"here": Reach(1.0, 0.5, 1.5)}, order, tmp_path / "a.png", title="t", label="x"),
        draw_profiles({"here": band(0.0)}, order, tmp_path / "b.png", title="t", label="x"),
        draw_learning({"here": band(5.0)}, order, tmp_path / "c.png", title="t", label="y"),
        draw_scatter({"here": ([1.0, 2.0], [3.0, 4.0])}, order, tmp_path / "d.png", title="t", labels=("x", "y")),
    ]
    for file in files[:3]:
        with Image.open(file) as image:
            assert share(image, SERIES[1]) > 1e-3 and share(image, SERIES[0]) == 0, file
    with Image.open(files[3]) as image:
        assert share(image, "#e5855c", 20) > 1e-3


def test_more_names_than_colours(tmp_path):
    names = tuple(f"name {i}" for i in range(14))
    file = draw_learning(
        {name: band(i) for i, name in enumerate(names)}, names, tmp_path / "a.png", title="t", label="y"
    )
    with Image.open(file) as image:
        assert all(share(image, color, 30) > 1e-3 for color in SERIES)


def test_a_long_label_stays_in_the_picture(tmp_path):
    """Its ink reaches neither edge."""
    label = "P(better than diffusion_cloning:replay-cpu-best-10-percent)"
    with Image.open(
        draw_intervals({"a": Reach(1.0, 0.5, 1.5)}, ["a"], tmp_path / "a.png", title="t", label=label)
    ) as image:
        pixels = np.asarray(image.convert("L")).astype(int)
    edges = pixels[-60:, [0, 1, -2, -1]]
    assert np.ptp(edges) < 8
    assert np.ptp(pixels[-60:]) > 100
