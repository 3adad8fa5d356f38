"""What a run says: metrics.jsonl, TensorBoard or Weights & Biases if asked for, and one live line on standard error."""

import json
import sys
import time
from pathlib import Path
from typing import Any, Literal

from ornstein.checkpoint import replacing

Sink = Literal["tensorboard", "wandb"]


class Log:
    """The metrics of one seed, one JSON object a line, cut back to a step when a run resumes."""

    def __init__(self, directory: Path | None, sinks: tuple[Sink, ...] = (), *, resume_at: int = 0) -> None:
        self.path = directory / "metrics.jsonl" if directory else None
        self.sinks = [_SINKS[name](directory) for name in sinks] if directory else []
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            kept = [line for line in self._lines() if line["step"] <= resume_at]
            with replacing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def _lines(self) -> list[dict[str, Any]]:
        """The whole lines of the file; a last line cut short by a kill is left out."""
        if self.path is None or not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
        return lines

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append the metrics of one step."""
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step} | values) + "\n")
        for sink in self.sinks:
            sink.write(step, values)

    def close(self) -> None:
        """Flush and close the optional sinks."""
        for sink in self.sinks:
            sink.close()


class TensorBoard:
    """Scalars for TensorBoard (`pip install ornstein[tensorboard]`)."""

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError("logging to tensorboard needs the package: pip install 'ornstein[tensorboard]'") from error
        self.writer = SummaryWriter(str(directory / "tensorboard"))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add one scalar per metric."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the event file."""
        self.writer.close()


class WeightsAndBiases:
    """Scalars for Weights & Biases (`pip install ornstein[wandb]`)."""

    def __init__(self, directory: Path) -> None:
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
    """A live line on a terminal, or a plain line every `every` seconds elsewhere: step, loss, steps per second, time left."""

    def __init__(self, label: str, steps: int, *, show: bool = True, every: float = 10.0) -> None:
        self.label, self.steps, self.show = label, steps, show
        self.live = sys.stderr.isatty()
        self.every = 0.2 if self.live else every
        self.began = self.shown = time.monotonic()
        self.first: int | None = None

    def speed(self, step: int) -> float:
        """Steps per second since the first call."""
        done = step - (self.first or 0)
        return done / max(time.monotonic() - self.began, 1e-9)

    def update(self, step: int, loss: float) -> None:
        """Show the line if it is due."""
        if self.first is None:
            self.first, self.began = step, time.monotonic()
        now = time.monotonic()
        if not self.show or (now - self.shown < self.every and step < self.steps):
            return
        self.shown = now
        rate = self.speed(step)
        left = (self.steps - step) / rate if rate > 0 else float("inf")
        text = f"{self.label}  {step}/{self.steps}  loss {loss:.4g}  {rate:.1f} steps/s  {_clock(left)} left"
        print(f"\r\x1b[2K{text}" if self.live else text, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the live line."""
        if self.show and self.live:
            print(file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
