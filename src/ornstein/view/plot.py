"""Pictures of plans over a maze: walls, starts, goals, what was planned and what was ridden."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ornstein.view.style import FAINT, GOAL, INK, RIDE, START, WALL, drawing, ramp

GOAL_RADIUS = 0.45

Boxes = Float[np.ndarray, " walls 4"]
"""Wall cells as (x low, y low, x high, y high)."""

Path2 = Float[np.ndarray, " points 2"]


class Panel(NamedTuple):
    """One start-goal pair: the plans made for it (the first one was ridden), the ride, and a line of text below."""

    start: tuple[float, float]
    goal: tuple[float, float]
    plans: tuple[Path2, ...]
    ride: Path2 | None = None
    caption: str = ""


def draw_plans(
    boxes: Boxes, panels: Sequence[Panel], out: Path | str, *, title: str = "", note: str = "", columns: int = 3
) -> Path:
    """The path of a PNG with one small maze per panel, a title above, a legend and a note below."""
    if not panels:
        raise ValueError("no panels to draw: give one at least")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = np.ptp(boxes[:, [0, 2]]), np.ptp(boxes[:, [1, 3]])
    inches = 3.0 if width <= 6 else 3.9
    cell = (inches, inches * height / width)
    head, foot, gap, text = 0.5 if title else 0.15, 0.5, 0.16, 0.3 if any(p.caption for p in panels) else 0.08
    total = (columns * cell[0] + (columns + 1) * gap, head + rows * (cell[1] + text) + foot)
    with drawing() as pyplot:
        figure = pyplot.figure(figsize=total, dpi=160)
        for i, panel in enumerate(panels):
            row, column = divmod(i, columns)
            left = gap + column * (cell[0] + gap)
            bottom = foot + (rows - 1 - row) * (cell[1] + text) + text
            axes = figure.add_axes((left / total[0], bottom / total[1], cell[0] / total[0], cell[1] / total[1]))
            _draw_panel(axes, boxes, panel)
        if title:
            figure.text(gap / total[0], 1 - 0.24 / total[1], title, size=13, weight="bold", va="center")
        _legend(figure, total, gap, note)
        target = Path(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target)
    return target


def draw_walls(axes: Any, boxes: Boxes) -> None:
    """Fill the walls and frame the view; no ticks, equal scale."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    cells = [Rectangle((x0, y0), x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
    axes.add_collection(PatchCollection(cells, facecolor=WALL, edgecolor="none", antialiased=False, zorder=1))
    rim = 0.72  # show a strip of the outer wall, not all of it
    axes.set_xlim(boxes[:, 0].min() + rim, boxes[:, 2].max() - rim)
    axes.set_ylim(boxes[:, 1].min() + rim, boxes[:, 3].max() - rim)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def draw_ends(axes: Any, start: tuple[float, float], goal: tuple[float, float]) -> None:
    """The start as a ring and the goal as its disc."""
    from matplotlib.patches import Circle

    axes.add_patch(Circle(goal, GOAL_RADIUS, facecolor=GOAL, alpha=0.22, edgecolor="none", zorder=0.5))
    axes.add_patch(Circle(goal, GOAL_RADIUS, facecolor="none", edgecolor=GOAL, linewidth=1.0, zorder=0.6))
    axes.plot(*goal, marker="*", markersize=11, color=GOAL, markeredgecolor="white", markeredgewidth=0.7, zorder=7)
    axes.plot(*start, marker="o", markersize=8, color=START, markeredgecolor="white", markeredgewidth=1.2, zorder=7)


def draw_plan(axes: Any, plan: Path2, *, alpha: float = 1.0) -> None:
    """A plan's rows as dots on a line that darkens with time."""
    from matplotlib.collections import LineCollection

    age = np.linspace(0.0, 1.0, len(plan))
    lines = LineCollection(
        list(np.stack([plan[:-1], plan[1:]], 1)), cmap=ramp(), array=age[1:], linewidth=0.9, alpha=alpha, zorder=4
    )
    lines.set_capstyle("round")
    axes.add_collection(lines)
    axes.scatter(*plan.T, c=age, cmap=ramp(), s=15, alpha=alpha, linewidth=0.5, edgecolor="white", zorder=5)


def _draw_panel(axes: Any, boxes: Boxes, panel: Panel) -> None:
    draw_walls(axes, boxes)
    draw_ends(axes, panel.start, panel.goal)
    for i, plan in reversed(list(enumerate(panel.plans))):
        draw_plan(axes, plan, alpha=1.0 if i == 0 else 0.3)
    if panel.ride is not None:
        axes.plot(*panel.ride.T, color=RIDE, linewidth=2.4, zorder=3)
    if panel.caption:
        axes.text(0.5, -0.03, panel.caption, transform=axes.transAxes, ha="center", va="top", size=9, color=INK)


def _legend(figure: Any, total: tuple[float, float], gap: float, note: str) -> None:
    from matplotlib.lines import Line2D

    plan = ramp()(0.6)
    handles = [
        Line2D([], [], marker="o", color="none", markerfacecolor=START, markeredgecolor="white", markersize=8),
        Line2D([], [], marker="*", color="none", markerfacecolor=GOAL, markeredgecolor="white", markersize=11),
        Line2D(
            [], [], marker="o", color=plan, markersize=4.2, markeredgecolor="white", markeredgewidth=0.5, linewidth=0.9
        ),
        Line2D([], [], color=RIDE, linewidth=2.4),
    ]
    figure.legend(
        handles,
        ["start", "goal", "plan", "ride"],
        loc="center left",
        bbox_to_anchor=(gap / total[0] - 0.004, 0.23 / total[1]),
        ncols=4,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.4,
        borderpad=0,
    )
    if note:
        figure.text(1 - gap / total[0], 0.23 / total[1], note, ha="right", va="center", size=9, color=FAINT)
