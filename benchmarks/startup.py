"""How long a user waits for the first line: the import and the help, each in an interpreter of its own."""

import os
import resource
import subprocess
import sys
import time
from statistics import median

from benchmarks.measure import Row

CASES = {
    "import ornstein": (["-c", "import ornstein, sys; assert 'torch' not in sys.modules"], 0.3),
    "ornstein --help": (["-m", "ornstein", "--help"], 0.5),
}


def rows(quick: bool) -> list[Row]:
    """Wall seconds of each, beside an interpreter that does nothing."""
    found = []
    for name, (words, bar) in CASES.items():
        pairs = [(launch(words), launch(["-c", ""])) for _ in range(5 if quick else 11)]
        (cpu, wall), (empty_cpu, empty_wall) = (
            [median(each) for each in zip(*side, strict=True)] for side in zip(*pairs, strict=True)
        )
        met, more = wall < 1e3 * bar, {"wall_ours": wall, "wall_usual": empty_wall, "usual": "python -c ''"}
        found.append(Row(name, cpu, empty_cpu, bar=f"< {bar:g} s wall", met=met, more=more))
    return found


def launch(words: list[str]) -> tuple[float, float]:
    """CPU and wall milliseconds of one interpreter, the least disturbed of two."""
    return min((_once(words) for _ in range(2)), key=lambda pair: pair[1])


def _once(words: list[str]) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *words],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""},
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), 1e3 * wall
