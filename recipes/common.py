"""What every recipe shares: its result file, its data, intervals over seeds, and learning online with a curve."""

import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import torch

import ornstein
from ornstein.checkpoint import write_json
from ornstein.data.episodes import Episodes
from ornstein.fit import Run
from ornstein.online import Online, train_online

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
BEGAN = time.monotonic()


def offline_file(name: str) -> Path:
    """The path of one of the offline locomotion files, in $ORNSTEIN_DATA or beside the checkout in shared/data."""
    folder = Path(os.environ.get("ORNSTEIN_DATA", ROOT.parent / "shared" / "data"))
    path = folder / "mujoco-offline" / f"{name}.h5"
    if not path.exists():
        raise SystemExit(f"{path} is not there: set ORNSTEIN_DATA to the folder that holds mujoco-offline/{name}.h5")
    return path


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and two-sided 95 % interval by Student's t; for paired comparisons give the differences.

    One value alone has no interval: its ends are None.
    """
    from scipy.stats import t

    centre = mean(values)
    if len(values) < 2:
        return {"mean": centre, "low": None, "high": None}
    reach = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return {"mean": centre, "low": centre - reach, "high": centre + reach}


def write(name: str, values: dict[str, Any]) -> None:
    """Write `results/<name>.json` with the command and versions beside the values, and print it."""
    head = {
        "command": "python -m " + " ".join(["recipes." + Path(sys.argv[0]).stem, *sys.argv[1:]]),
        "ornstein": ornstein.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - BEGAN),
    }
    write_json(RESULTS / f"{name}.json", head | values)
    say(f"wrote results/{name}.json")


def learned(
    system: Any, config: Any, env: Callable[[], Any], online: Online, *, every: int, seed: int = 0,
    score: Callable[[Any], dict[str, float]] | None = None, prior: Episodes | None = None, weights: Path | None = None,
) -> tuple[Any, list[dict[str, float]]]:  # fmt: skip
    """A policy trained online, and its score after every so many updates and after the last.

    It may begin with records and with weights.
    """
    points: list[dict[str, float]] = []

    def note(policy: Any) -> float:
        assert score is not None
        points.append({"updates": min((len(points) + 1) * every, config.steps), **score(policy)})
        say(f"{system.name} {points[-1]}")
        return 0.0

    with TemporaryDirectory() as folder:
        run = Run(
            Path(folder), seeds=(seed,), checkpoint_every=every, score=None if score is None else note, quiet=True,
            init_from=weights,
        )  # fmt: skip
        return train_online(system, config, env, run, online=online, prior=prior), points


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
