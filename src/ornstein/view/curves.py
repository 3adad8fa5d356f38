"""Learning curves from metrics.jsonl: one small chart per group of metrics, each seed a line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ornstein.view.style import FAINT, SERIES, drawing

Curve = tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]
"""Steps and values."""


def read_metrics(path: Path | str) -> dict[str, Curve]:
    """The curves of one metrics.jsonl by name; a last line cut short is left out, values that are no numbers too."""
    points: dict[str, list[tuple[float, float]]] = {}
    for text in Path(path).read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float) and np.isfinite(value):
                points.setdefault(name, []).append((line["step"], value))
    return {name: (np.array(xy)[:, 0], np.array(xy)[:, 1]) for name, xy in points.items()}


def draw_curves(
    metrics: Sequence[Path | str], out: Path | str, *, title: str = "", skip: Sequence[str] = ("time/",)
) -> Path:
    """The path of a PNG with one chart per metric and one line per file (seed): points faint, running mean clear.

    `skip`: beginnings of names to leave out. Charts whose values are all positive and span more than two decades have a
    logarithmic axis.
    """
    runs = {_label(path): read_metrics(path) for path in metrics}
    names = sorted({name for run in runs.values() for name in run if not name.startswith(tuple(skip) or ("\0",))})
    if not names:
        raise ValueError(f"no metrics in {', '.join(map(str, metrics))}: the run has not logged anything yet")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with drawing() as pyplot:
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(3.7 * columns, 2.5 * rows + 0.7), dpi=150, squeeze=False, layout="constrained"
        )
        for place, name in zip(axes.flat, names, strict=False):
            _draw_chart(place, name, {label: run[name] for label, run in runs.items() if name in run})
        for place in axes.flat[len(names) :]:
            place.set_visible(False)
        if len(runs) > 1:
            handles, labels = axes.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower left", ncols=min(len(runs), 6), frameon=False)
        if title:
            figure.suptitle(title, x=0.01, ha="left", weight="bold", size=13)
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        target = Path(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)
    return target


def smooth(values: Float[np.ndarray, " points"], share: float = 0.05) -> Float[np.ndarray, " points"]:
    """The centred running mean over a share of the points; at both ends over what there is."""
    half = int(len(values) * share / 2)
    total = np.concatenate([[0.0], values.cumsum()])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _draw_chart(axes: Any, name: str, curves: Mapping[str, Curve]) -> None:
    from matplotlib.ticker import EngFormatter

    for i, (label, (step, value)) in enumerate(curves.items()):
        color = SERIES[i % len(SERIES)]
        axes.plot(step, value, color=color, alpha=0.22, linewidth=0.8)
        axes.plot(step, smooth(value), color=color, linewidth=1.7, label=label)
    values = np.concatenate([value for _, value in curves.values()])
    if values.min() > 0 and values.max() > 100 * values.min():
        axes.set_yscale("log")
    axes.set_title(name, loc="left", pad=6)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y", color=FAINT, alpha=0.18, linewidth=0.8)
    axes.tick_params(length=0, labelsize=8.5)
    axes.margins(x=0.01)


def _label(path: Path | str) -> str:
    """The run's own folder: `seed-3` of .../seed-3/metrics.jsonl."""
    return Path(path).resolve().parent.name
