"""`python -m benchmarks [--quick] [SECTION ...]`: run, print one table, write results/benchmarks.json."""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import torch

from benchmarks.measure import Row, peak
from ornstein.memory import keep_freed

SECTIONS = ("startup", "samplers", "policy", "edp", "planner", "seeds", "data", "graphs", "gpu")
HEAD = f"{'':58} {'ours ms':>9} {'usual ms':>9} {'floor ms':>9} {'ratio':>7}  {'bar':13}"


def main() -> int:
    """Return 0 if every bar that was measured is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", default=SECTIONS, metavar="SECTION", help=f"some of {', '.join(SECTIONS)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions; under a minute and a half")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "results" / "benchmarks.json")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"unknown sections {sorted(unknown)}; there are {', '.join(SECTIONS)}")
    torch.set_num_threads(1)
    keep_freed()  # as training and evaluation do; the other side has the good of it too
    began, report = time.monotonic(), {"machine": machine(options.quick), "sections": {}}
    print(f"{cpu()}, one thread, torch {torch.__version__}; largest matrix product {peak() / 1e6:.0f} GFLOP/s")
    print("CPU time per call, medians of turns; ratios turn by turn; floor: products and convolutions at that rate\n")
    print(HEAD)
    for name in options.sections:
        found = import_module(f"benchmarks.{name}").rows(options.quick)
        report["sections"][name] = [asdict(row) for row in found]
        print("\n".join([f"-- {name}", *map(line, found)]), flush=True)
    missed = [row["name"] for section in report["sections"].values() for row in section if row["met"] is False]
    print(
        f"\n{'every bar is met' if not missed else 'missed: ' + '; '.join(missed)} ({time.monotonic() - began:.0f} s)"
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    merge(options.out, report)
    return 1 if missed else 0


def line(row: Row) -> str:
    """A row as text."""
    cells = [f"{value:9.2f}" if value else " " * 9 for value in (row.ours, row.usual, row.floor)]
    ratio = " " * 7 if row.ratio is None else f"{row.ratio:7.2f}"
    met = {True: "met", False: "MISSED", None: ""}[row.met]
    return f"{row.name:58} {' '.join(cells)} {ratio}  {row.bar:13} {met}".rstrip()


def machine(quick: bool) -> dict[str, Any]:
    """Where and with what the numbers were taken."""
    libraries = {name: version(name) for name in ("torch", "numpy", "diffusers")}
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu(), "cores": os.cpu_count(), "threads": 1, "gpu": cuda, "python": platform.python_version(),
        "versions": libraries, "peak_gflops": round(peak() / 1e6, 1), "quick": quick,
    }  # fmt: skip


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((each.split(": ")[1] for each in lines if each.startswith("model name")), platform.processor())


def merge(path: Path, report: dict[str, Any]) -> None:
    """Write the report; sections that this run left out keep what the file says about them."""
    old = json.loads(path.read_text()) if path.exists() else {}
    sections = old.get("sections", {}) | report["sections"]
    report["sections"] = {name: sections[name] for name in SECTIONS if name in sections}
    path.write_text(json.dumps(report, indent=1, default=float) + "\n")


if __name__ == "__main__":
    sys.exit(main())
