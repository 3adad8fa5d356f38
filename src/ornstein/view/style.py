"""One look for every picture: paper, ink and four colours that stay apart for colour-blind readers and in print."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PAPER, INK, FAINT, WALL = "#fbfaf7", "#22252b", "#8b8f98", "#3a3f4b"
PLAN, RIDE, GOAL, START = "#2f6fb3", "#e0662f", "#d9a514", "#2c8c6b"
SERIES = (PLAN, RIDE, START, GOAL, "#8c5aa6", "#5c6470")

PLAN_RAMP = ("#b9d3ee", "#2f6fb3", "#123a66")
"""Along a plan, from its first row to its last."""

_RULES: Any = {
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


@contextmanager
def drawing() -> Iterator[Any]:
    """Matplotlib's pyplot without a window, in this look; figures made inside are closed at the end."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ValueError("pictures need the package matplotlib: pip install 'ornstein[view]'") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(_RULES):
        try:
            yield pyplot
        finally:
            pyplot.close("all")


def ramp() -> Any:
    """The colour map along a plan."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("plan", list(PLAN_RAMP))
