"""Animations: noise turning into a plan, then the ball that follows it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ornstein.view.plot import Boxes, draw_ends, draw_walls
from ornstein.view.style import FAINT, INK, PLAN, RIDE, drawing, ramp


class Scene(NamedTuple):
    """One maze; `trace`: the plan's positions after 0, 1, ... denoising calls; the last is the plan."""

    start: tuple[float, float]
    goal: tuple[float, float]
    trace: Float[np.ndarray, " calls rows 2"]
    ride: Float[np.ndarray, " steps 2"]


class Beat(NamedTuple):
    """One frame: how many denoising calls are done, which share of the longest ride, and how long it stays (ms)."""

    call: float
    ride: float
    stay: int


FRAME = 50
"""Milliseconds of an ordinary frame; GIF players do not go much faster."""


def animate_plans(
    boxes: Boxes, scenes: Sequence[Scene], out: Path | str, *, title: str = "", frames: tuple[int, int] = (36, 60)
) -> Path:
    """The path of a GIF that shows the scenes side by side: first the noise becomes the plans, then the balls ride.

    `frames`: how many pictures for the denoising and for the ride.
    """
    if not scenes:
        raise ValueError("no scenes to animate: give one at least")
    calls = {len(scene.trace) for scene in scenes}
    if len(calls) != 1 or min(calls) < 2:
        raise ValueError(f"traces of {sorted(calls)} entries: all scenes need the same number, 2 at least")
    with drawing() as pyplot:
        stage = _Stage(pyplot, boxes, scenes, title)
        beats = list(timeline(calls.pop() - 1, *frames))
        pictures = [stage.picture(beat) for beat in beats]
    target = Path(out)
    target.parent.mkdir(parents=True, exist_ok=True)
    palette = pictures[len(pictures) // 2].quantize(128, dither=0)
    small = [picture.quantize(palette=palette, dither=0) for picture in pictures]
    stays = [beat.stay for beat in beats]
    small[0].save(target, save_all=True, append_images=small[1:], duration=stays, loop=0, optimize=True)
    return target


def timeline(calls: int, denoising: int, riding: int) -> Iterator[Beat]:
    """The frames: the noise, the denoising, slower towards its end, the plan, the ride, a last look."""
    yield Beat(0.0, 0.0, 10 * FRAME)
    for i in range(1, denoising + 1):
        share = i / denoising
        yield Beat(calls * (1.0 - (1.0 - share) ** 1.6), 0.0, FRAME if i < denoising else 12 * FRAME)
    for i in range(1, riding + 1):
        yield Beat(float(calls), i / riding, FRAME if i < riding else 40 * FRAME)


class _Stage:
    """The figure, whose moving parts are updated frame by frame."""

    def __init__(self, pyplot: Any, boxes: Boxes, scenes: Sequence[Scene], title: str) -> None:
        self.scenes, self.longest = scenes, max(len(scene.ride) for scene in scenes)
        width, height = np.ptp(boxes[:, [0, 2]]), np.ptp(boxes[:, [1, 3]])
        inches = {1: 4.4, 2: 3.4}.get(len(scenes), 2.7) * (1.0 if width <= 6 else 1.25)
        head, foot, gap = 0.42 if title else 0.12, 0.42, 0.12
        total = (len(scenes) * (inches + gap) + gap, head + inches * height / width + foot)
        self.figure = pyplot.figure(figsize=total, dpi=110)
        self.parts = []
        for i, scene in enumerate(scenes):
            box = (
                (gap + i * (inches + gap)) / total[0],
                foot / total[1],
                inches / total[0],
                1 - (head + foot) / total[1],
            )
            self.parts.append(_moving(self.figure.add_axes(box), boxes, scene))
        edge = gap / total[0]
        if title:
            self.figure.text(edge, 1 - 0.21 / total[1], title, size=12, weight="bold", va="center")
        line = 0.21 / total[1]
        self.words = self.figure.text(edge, line, "", size=9.5, color=INK, va="center")
        left, self.right = edge + 1.75 / total[0], 1 - edge
        self.left = min(left, 0.6)
        base = {"transform": self.figure.transFigure, "solid_capstyle": "round", "linewidth": 3}
        from matplotlib.lines import Line2D

        self.figure.add_artist(Line2D([self.left, self.right], [line, line], color=FAINT, alpha=0.25, **base))
        self.bar = Line2D([self.left, self.left], [line, line], color=PLAN, **base)
        self.figure.add_artist(self.bar)

    def picture(self, beat: Beat) -> Any:
        """One frame as a PIL image."""
        from PIL import Image

        step = round(beat.ride * (self.longest - 1))
        for scene, parts in zip(self.scenes, self.parts, strict=True):
            _move(scene, parts, beat.call, step, riding=beat.ride > 0)
        calls = len(self.scenes[0].trace) - 1
        riding = beat.ride > 0
        self.words.set_text(f"riding   step {step}" if riding else f"denoising   {int(beat.call)} / {calls}")
        done = beat.ride if riding else beat.call / calls
        self.bar.set_xdata([self.left, self.left + done * (self.right - self.left)])
        self.bar.set_color(RIDE if riding else PLAN)
        self.figure.canvas.draw()
        return Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[..., :3].copy())


def _moving(axes: Any, boxes: Boxes, scene: Scene) -> tuple[Any, Any, Any, Any]:
    """The artists that move in one maze: plan line, plan dots, trail and ball."""
    draw_walls(axes, boxes)
    draw_ends(axes, scene.start, scene.goal)
    age = np.linspace(0.0, 1.0, scene.trace.shape[1])
    (line,) = axes.plot([], [], color=PLAN, linewidth=0.9, alpha=0.0, zorder=4)
    dots = axes.scatter(*scene.trace[0].T, c=age, cmap=ramp(), s=17, linewidth=0.5, edgecolor="white", zorder=5)
    (trail,) = axes.plot([], [], color=RIDE, linewidth=4.0, zorder=3)
    (ball,) = axes.plot([], [], "o", color=RIDE, markersize=9, markeredgecolor="white", markeredgewidth=1.3, zorder=8)
    return line, dots, trail, ball


def _move(scene: Scene, parts: tuple[Any, Any, Any, Any], call: float, step: int, *, riding: bool) -> None:
    line, dots, trail, ball = parts
    last = len(scene.trace) - 1
    low = min(int(call), last - 1)
    rows = scene.trace[low] + (call - low) * (scene.trace[low + 1] - scene.trace[low])
    dots.set_offsets(rows)
    line.set_data(*rows.T)
    line.set_alpha(0.75 * (call / last) ** 3)
    ridden = scene.ride[: step + 1] if riding else scene.ride[:0]
    trail.set_data(*ridden.T)
    ball.set_data(*ridden[-1:].T)
