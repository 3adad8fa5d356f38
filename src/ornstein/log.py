"""What a run says: metrics.jsonl, TensorBoard or Weights & Biases if asked for, and one live line on standard error."""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any, Literal

from ornstein.checkpoint.files import replacing

Sink = Literal["tensorboard", "wandb"]


class Log:
    """The metrics of one seed, one JSON object a line, cut back to a step when a run resumes.

    Times are under names that begin with `time/`; all else is the same from run to run.
    """

    def __init__(self, directory: Path, sinks: tuple[Sink, ...] = (), *, resume_at: int = 0) -> None:
        self.path = directory / "metrics.jsonl"
        kept = [line for line in read_lines(self.path) if line["step"] <= resume_at]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self.sinks = [_SINKS[name](directory, resume_at) for name in sinks]

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append the values of one step; those that are not finite become null, for which JSON has a word."""
        line = {"step": step} | {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        for sink in self.sinks:
            sink.write(step, values)

    def close(self) -> None:
        """Flush and close the optional sinks."""
        for sink in self.sinks:
            sink.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, or none if it is not there; a last line cut short by a kill is left out."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


class TensorBoard:
    """Scalars for TensorBoard (`pip install ornstein[tensorboard]`)."""

    def __init__(self, directory: Path, resume_at: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("logging to tensorboard needs the package: pip install 'ornstein[tensorboard]'") from error
        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=resume_at + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one scalar per metric."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self.writer.close()


class WeightsAndBiases:
    """Scalars for Weights & Biases (`pip install ornstein[wandb]`)."""

    def __init__(self, directory: Path, resume_at: int = 0) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ValueError("logging to wandb needs the package: pip install 'ornstein[wandb]'") from error
        self.run = wandb.init(dir=str(directory), name=directory.name)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log the metrics of one step."""
        self.run.log(values, step=step)

    def close(self) -> None:
        """End the remote run."""
        self.run.finish()


_SINKS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


class Progress:
    """Step, loss, steps per second and time left: live on a terminal, elsewhere a plain line every `every` seconds."""

    def __init__(self, label: str, steps: int, *, show: bool = True, every: float = 10.0) -> None:
        self.label, self.steps, self.enabled = label, steps, show
        self.live = sys.stderr.isatty()
        self.every = 0.2 if self.live else every
        self.began = self.shown = time.monotonic()
        self.first: int | None = None

    def due(self, step: int) -> bool:
        """Whether to show the line after this many steps; to be asked after each, as the first starts the clock."""
        now = time.monotonic()
        if self.first is None:  # the first step also compiles and captures
            self.first, self.began = step, now
        return self.enabled and (now - self.shown >= self.every or step == self.steps)

    def speed(self, step: int) -> float:
        """Steps per second since the first step of this session."""
        return (step - (self.first or step)) / max(time.monotonic() - self.began, 1e-9)

    def show(self, step: int, loss: float) -> None:
        """Print the line."""
        self.shown = time.monotonic()
        rate = self.speed(step)
        left = (self.steps - step) / rate if rate > 0 else float("inf")
        text = f"{self.label}  {step}/{self.steps}  loss {loss:.4g}  {rate:.1f} steps/s  {_clock(left)} left"
        print(f"\r\x1b[2K{text}" if self.live else text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the live line."""
        if self.enabled and self.live:
            print(file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
