"""Several panels of lines side by side, with one legend: the figure of a study."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ornstein.view.style import FAINT, SERIES, drawing

DASHES = ("-", (0, (5, 2)), (0, (1, 1.6)))

Line = tuple[Sequence[float], Sequence[float]]
"""The x and the y of the points."""


def draw_panels(
    panels: Mapping[str, Mapping[str, Line]], out: Path, *, title: str, x: str, log_x: bool = False
) -> Path:
    """The path of a PNG with one panel per entry, whose lines share names, colours and the legend below."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with drawing() as pyplot:
        figure, rows = pyplot.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.9), dpi=160, squeeze=False)
        for axes, (label, lines) in zip(rows[0], panels.items(), strict=True):
            for name, (horizontal, vertical) in lines.items():
                place = names.index(name)
                look = {"color": SERIES[place % len(SERIES)], "linestyle": DASHES[place // len(SERIES)]}
                axes.plot(horizontal, vertical, marker="o", markersize=3.5, linewidth=1.6, label=name, **look)
            if log_x:
                axes.set_xscale("log", base=2)
                ticks = sorted({point for horizontal, _ in lines.values() for point in horizontal})
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_title(label, loc="left")
            axes.set_xlabel(x)
            axes.grid(color=FAINT, alpha=0.18, linewidth=0.8)
        handles, labels = rows[0][0].get_legend_handles_labels()
        figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
        figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False)
        figure.tight_layout(rect=(0, 0.04 + 0.055 * -(-len(names) // 4), 1, 1))
        figure.savefig(out)
    return out
