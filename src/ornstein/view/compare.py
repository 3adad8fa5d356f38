"""Pictures of a comparison, each narrow enough for a phone: intervals, performance profiles, curves, scatter."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ornstein.view.style import FAINT, INK, SERIES, drawing

WIDTH, DPI = 4.1, 200
"""Inches: shown at 360 pixels, text of ten points is still eight."""

LETTERS = 44
"""The most that a line below a picture holds."""

DASHES = ("-", "--", ":")


Order = Sequence[str]
"""All names of a report; a name's place gives its colour in every picture."""


class Reach(NamedTuple):
    """An estimate and the ends of its interval."""

    estimate: float
    low: float
    high: float


class Band(NamedTuple):
    """A line with a band around it."""

    x: Float[np.ndarray, " points"]
    y: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


def draw_intervals(
    values: Mapping[str, Reach | None], order: Order, out: Path, *, title: str, label: str, line: float | None = None
) -> Path:
    """The path of a PNG with one dot and bar per name, best first, None as a gap below; `line`: a mark."""
    values = dict(sorted(values.items(), key=lambda entry: -entry[1].estimate if entry[1] else math.inf))
    height = 0.95 + 0.46 * len(values)
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        if line is not None:
            axes.axvline(line, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        for row, (name, value) in enumerate(values.items()):
            axes.annotate(
                name if value else f"{name}: rows are missing",
                (0, row),
                xytext=(0, 7),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                size=8.5,
                color=INK if value else FAINT,
            )
            if value:
                color = _color(name, order)
                axes.plot([value.low, value.high], [row + 0.12] * 2, color=color, linewidth=5, alpha=0.4)
                axes.plot([value.estimate], [row + 0.12], "o", color=color, markersize=6)
        axes.set_ylim(len(values) - 0.4, -0.65)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=FAINT, alpha=0.18, linewidth=0.8)
        return _finish(figure, axes, out, title=title, x=label)


def draw_profiles(curves: Mapping[str, Band], order: Order, out: Path, *, title: str, label: str) -> Path:
    """The path of a PNG with the share of runs above each score, and its bootstrap band."""
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(WIDTH, 3.0 + 0.2 * len(curves)), dpi=DPI, layout="constrained")
        _draw_bands(axes, curves, order)
        axes.set_ylim(-0.02, 1.02)
        _legend(figure, axes)
        return _finish(figure, axes, out, title=title, x=label, y="share of runs above")


def draw_learning(curves: Mapping[str, Band], order: Order, out: Path, *, title: str, label: str) -> Path:
    """The path of a PNG with one line per name over training steps: the mean over seeds, and their range."""
    from matplotlib.ticker import EngFormatter

    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(WIDTH, 2.8 + 0.2 * len(curves)), dpi=DPI, layout="constrained")
        _draw_bands(axes, curves, order)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _legend(figure, axes)
        return _finish(figure, axes, out, title=title, x="gradient steps", y=label)


def draw_scatter(
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    order: Order,
    out: Path,
    *,
    title: str,
    labels: tuple[str, str],
) -> Path:
    """The path of a PNG with one dot per row: x and y of each name in its colour."""
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(figsize=(WIDTH, 3.0 + 0.2 * len(points)), dpi=DPI, layout="constrained")
        for name, (x, y) in points.items():
            marker = "os^"[_lap(name, order) % 3]
            axes.scatter(x, y, s=34, color=_color(name, order), marker=marker, alpha=0.8, linewidth=0, label=name)
        axes.grid(color=FAINT, alpha=0.18, linewidth=0.8)
        _legend(figure, axes)
        return _finish(figure, axes, out, title=title, x=labels[0], y=labels[1])


def _color(name: str, order: Order) -> str:
    return SERIES[order.index(name) % len(SERIES)]


def _lap(name: str, order: Order) -> int:
    """How often the colours have been used up before this name."""
    return order.index(name) // len(SERIES)


def _draw_bands(axes: Any, curves: Mapping[str, Band], order: Order) -> None:
    for name, band in curves.items():
        color, dash = _color(name, order), DASHES[_lap(name, order) % len(DASHES)]
        axes.fill_between(band.x, band.low, band.high, color=color, alpha=0.14, linewidth=0)
        axes.plot(band.x, band.y, dash, color=color, linewidth=1.7, label=name)
    axes.grid(color=FAINT, alpha=0.18, linewidth=0.8)
    axes.margins(x=0.01)


def _legend(figure: Any, axes: Any) -> None:
    """The names below the picture, one a line, where they never cover a curve."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=8.5, labelspacing=0.25)


def _finish(figure: Any, axes: Any, out: Path, *, title: str, x: str, y: str = "") -> Path:
    axes.set_title(title, loc="left", weight="bold", pad=8, wrap=True)
    axes.set_xlabel(textwrap.fill(x, LETTERS))
    axes.set_ylabel(y)
    axes.tick_params(length=0, labelsize=8.5)
    axes.locator_params(axis="x", nbins=5)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return out
