"""What every recipe shares: its result file, its data, and intervals over seeds."""

import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import ornstein
from ornstein.checkpoint import write_json

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


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean and two-sided 95 % interval by Student's t; for paired comparisons give the differences."""
    from scipy.stats import t

    centre = mean(values)
    if len(values) < 2:
        return {"mean": centre, "low": -math.inf, "high": math.inf}
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


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
