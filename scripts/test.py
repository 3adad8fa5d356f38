"""The whole check: ruff, pyright, the tests under the runtime shape checker, those that need it off; then the sum."""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKED = ["-m", "not slow and not graph", "--jaxtyping-packages=ornstein,beartype.beartype"]
UNCHECKED = ["-m", "graph and not slow"]


def main() -> int:
    """Run every stage, whatever the earlier ones said, and return 0 only if all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="processes of the tests")
    parser.add_argument("--only-lint", action="store_true", help="ruff and pyright only")
    options = parser.parse_args()
    began = time.monotonic()
    failed = [name for name, words in lint().items() if not run(name, words)[0]]
    counts: dict[str, int] = {}
    if not options.only_lint:
        spread = ["-n", str(options.jobs), "--dist", "worksteal"]
        for name, words in (("tests", [*CHECKED, *spread]), ("graph tests", [*UNCHECKED, "-n", "0"])):
            passed, text = run(name, ["-m", "pytest", *words])
            failed += [] if passed else [name]
            for number, outcome in re.findall(r"(\d+) (passed|failed|errors?|skipped|xfailed)", last_line(text)):
                counts[outcome] = counts.get(outcome, 0) + int(number)
    seconds = f"in {time.monotonic() - began:.0f} s"
    tally = ", ".join(f"{number} {outcome}" for outcome, number in counts.items()) or "no tests run"
    if failed:
        print(f"FAILED: {', '.join(failed)}; {tally} {seconds}")
        return 1
    print(f"{tally} {seconds}" if counts else f"all checks passed {seconds}")
    return 0


def lint() -> dict[str, list[str]]:
    """The static checks by name."""
    return {
        "ruff check": ["-m", "ruff", "check", "."],
        "ruff format": ["-m", "ruff", "format", "--check", "."],
        "pyright": ["-m", "pyright"],
    }


def run(name: str, words: list[str]) -> tuple[bool, str]:
    """Whether one stage passed, and its output, which is shown as it comes."""
    print(f"--- {name}", flush=True)
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    return process.wait() == 0, "".join(lines)


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")


if __name__ == "__main__":
    sys.exit(main())
