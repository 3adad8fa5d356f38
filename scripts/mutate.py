"""Mutation testing: every flipped sign, operand, comparison and constant, and whether the tests notice.

    python scripts/mutate.py                          the diffusion core, every mutant
    python scripts/mutate.py --sample 100 --jobs 2    a hundred of them, drawn from --seed
    python scripts/mutate.py src/ornstein/rl/critic.py --tests tests/rl

The work happens in a temporary copy of the tree. One process imports torch and pytest once and forks; a child imports
the changed package afresh and runs only the tests that reach the changed line, quickest first, until one fails. Results
stay in results/mutation.json: what was caught is not run again, survivors are. The field `why` of a survivor, written
into that file by hand, is kept.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from mutants import Mutant, mutants

ROOT = Path(__file__).parent.parent
SOLVERS = ("solver", "dpm", "stochastic", "runge_kutta", "sampler")
CORE = [f"src/ornstein/diffusion/{name}.py" for name in (*SOLVERS, "guidance", "denoiser", "bound", "constrain")]
RESULTS = ROOT / "results" / "mutation.json"
COPIED = ("src", "tests", "pyproject.toml")
CAUGHT = ("caught", "timeout")


def main() -> int:
    """Run the mutants that are left, and print the share that was caught."""
    os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    options = _options()
    files = [str(Path(name).resolve().relative_to(ROOT)) for name in options.files] if options.files else CORE
    everything = [m for file in files for m in mutants(file, (ROOT / file).read_text())]
    known = {} if options.fresh else {row["key"]: row for row in _read(options.out)}
    todo = [m for m in everything if known.get(m.key, {}).get("outcome") not in CAUGHT]
    if options.sample and options.sample < len(todo):
        todo = sorted(random.Random(options.seed).sample(todo, options.sample), key=lambda m: (m.file, m.start))
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copies = [_copy(Path(folder) / str(i)) for i in range(options.jobs)]
        tests = options.tests or sorted({_tests_of(file) for file in files})
        print(f"{len(everything)} mutants, {len(todo)} to run; learning which of {', '.join(tests)} reach which line")
        reach = _learn(copies[0], tests, files)
        for row in _run_all(todo, copies, reach, options):
            known[row["key"]] = {"why": known.get(row["key"], {}).get("why", "")} | row
            _write(options.out, everything, known)
    return _report(everything, known, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="files to mutate (default: solvers, guidance, denoiser, constraints)")
    parser.add_argument("--tests", nargs="*", help="test files or folders (default: those of the files' rooms)")
    parser.add_argument("--sample", type=int, default=0, help="draw this many of the mutants that are left")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one mutant")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop after so long; the next run goes on")
    parser.add_argument("--at-least", type=float, default=0.0, help="exit 1 if a smaller share is caught")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results file")
    return parser.parse_args()


def _copy(folder: Path) -> Path:
    """A copy of what the tests need; the working tree is never changed."""
    folder.mkdir(parents=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def _tests_of(file: str) -> str:
    """The tests of a file's room: src/ornstein/diffusion/solver.py is tested by tests/diffusion."""
    parts = Path(file).relative_to("src/ornstein").parts
    return f"tests/{parts[0]}" if len(parts) > 1 else f"tests/test_{Path(parts[0]).stem}.py"


class Reach:
    """A pytest plugin that notes which lines of the target files each test runs, and how long it takes."""

    def __init__(self, targets: dict[str, str]) -> None:
        self.targets = targets
        self.lines: dict[str, set[int]] = {}
        self.found: dict[str, dict[str, Any]] = {}

    def _trace(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self.targets else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines.setdefault(self.targets[frame.f_code.co_filename], set()).add(frame.f_lineno)
        return self._line

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """Trace the test with its fixtures."""
        self.lines = {}
        began = time.perf_counter()
        sys.settrace(self._trace)
        yield
        sys.settrace(None)
        reached = {file: sorted(lines) for file, lines in self.lines.items()}
        self.found[item.nodeid] = {"seconds": time.perf_counter() - began, "lines": reached}


class Choose:
    """A pytest plugin that keeps the named tests only, in the order of the names."""

    def __init__(self, names: list[str]) -> None:
        self.rank = {name: i for i, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep and sort."""
        items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])


def _learn(copy: Path, tests: list[str], files: list[str]) -> dict[str, dict[str, Any]]:
    """The seconds and the lines of each test on the unchanged package; then import here whatever the tests imported."""
    plugin = Reach({str(copy / file): file for file in files})
    told = copy / "reach.json"
    process = os.fork()
    if process == 0:
        code = _pytest(copy, tests, plugin, quiet=False)
        theirs = [m for m in sys.modules if m.partition(".")[0] not in ("ornstein", "tests", "conftest", "__main__")]
        here = [m for m in theirs if str(copy) not in str(getattr(sys.modules[m], "__file__", "") or "")]
        told.write_text(json.dumps({"found": plugin.found, "modules": here}))
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code != 0:
        raise SystemExit(f"the tests do not pass on the unchanged package (pytest says {code}); mend them first")
    learnt = json.loads(told.read_text())
    for module in learnt["modules"]:
        _import(module)
    return learnt["found"]


def _import(module: str) -> None:
    """Import a module in the parent, so that no child has to; what has no such name is left to the children."""
    try:
        __import__(module)
    except BaseException:
        sys.modules.pop(module, None)


def _pytest(copy: Path, tests: Iterable[str], plugin: Any, *, quiet: bool) -> int:
    """Run pytest in this process on a copy of the tree; only for a forked child."""
    os.chdir(copy)
    sys.path[:0] = [str(copy / "src"), str(copy / "tests")]
    sys.dont_write_bytecode = True
    if quiet:
        log = os.open(copy / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
    words = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not graph"]
    words += [f"--rootdir={copy}", "-c", str(copy / "pyproject.toml")]
    code = int(pytest.main([*words, *(str(copy / test) for test in tests)], plugins=[plugin]))
    import ornstein

    if not str(ornstein.__file__).startswith(str(copy)):
        raise SystemExit(f"the tests imported {ornstein.__file__}, not the copy in {copy}")
    return code


def _reaching(mutant: Mutant, reach: dict[str, dict[str, Any]]) -> list[str]:
    """The tests that run the mutant's statement, quickest first; all of the file's for what runs at import."""

    def hits(found: dict[str, Any]) -> bool:
        lines = found["lines"].get(mutant.file, [])
        first, last = mutant.lines
        return bool(lines) if mutant.at_import else any(first <= line <= last for line in lines)

    return sorted((name for name, found in reach.items() if hits(found)), key=lambda name: reach[name]["seconds"])


def _run_all(
    todo: list[Mutant], copies: list[Path], reach: dict[str, dict[str, Any]], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Run the mutants, one worker per copy, and yield their rows as they come."""
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    reader, writer = os.pipe()
    workers = []
    for i, copy in enumerate(copies):
        process = os.fork()
        if process == 0:
            os.close(reader)
            _work(todo[i :: len(copies)], copy, reach, options.limit, end, writer)
        workers.append(process)
    os.close(writer)
    began, done = time.monotonic(), 0
    with os.fdopen(reader) as rows:
        for line in rows:
            row = json.loads(line)
            done += 1
            left = (time.monotonic() - began) / done * (len(todo) - done)
            place = f"{row['file']}:{row['line']}"
            print(f"{done}/{len(todo)} {row['outcome']:9} {place} {row['kind']}: {row['mutated'][:80]}", flush=True)
            if sys.stderr.isatty():
                print(f"{left / 60:.0f} min left", end="\r", file=sys.stderr, flush=True)
            yield row
    for process in workers:
        os.waitpid(process, 0)


def _work(
    todo: list[Mutant], copy: Path, reach: dict[str, dict[str, Any]], limit: float, end: float, writer: int
) -> NoReturn:
    """One worker: change the file, fork a child that tests it, put the file back."""
    for mutant in todo:
        if time.monotonic() > end:
            break
        names = _reaching(mutant, reach)
        began = time.monotonic()
        outcome = _try(mutant, copy, names, limit) if names else "unreached"
        row = mutant.row() | {"key": mutant.key, "outcome": outcome, "tests": len(names)}
        row["seconds"] = round(time.monotonic() - began, 2)
        os.write(writer, (json.dumps(row) + "\n").encode())
    os._exit(0)


def _try(mutant: Mutant, copy: Path, names: list[str], limit: float) -> str:
    """Whether the named tests notice the mutant."""
    path = copy / mutant.file
    unchanged = path.read_text()
    path.write_text(mutant.apply(unchanged))
    files = sorted({name.partition("::")[0] for name in names})
    try:
        process = os.fork()
        if process == 0:
            os.setsid()
            try:
                code = _pytest(copy, files, Choose(names), quiet=True)
            except BaseException:
                code = 3
            os._exit(code)
        return _outcome(process, limit)
    finally:
        path.write_text(unchanged)


def _outcome(process: int, limit: float) -> str:
    """Wait for a child: exit code 0 means that no test noticed, 5 that none was left to run."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) in (0, 5) else "caught"
        time.sleep(0.01)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "timeout"


def _read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["mutants"] if path.exists() else []


def _write(path: Path, everything: list[Mutant], known: dict[str, dict[str, Any]]) -> None:
    """The results of all mutants that still exist, with what survived by itself; those of other files stay."""
    files = {m.file for m in everything}
    others = [row for row in _read(path) if row["file"] not in files and (ROOT / row["file"]).exists()]
    rows = sorted([*others, *(known[m.key] | m.row() for m in everything if m.key in known)], key=lambda r: r["file"])
    missed = [row for row in rows if row["outcome"] not in CAUGHT]
    summary = {
        "tried": len(rows),
        "caught": len(rows) - len(missed),
        "share": round((len(rows) - len(missed)) / len(rows), 4) if rows else None,
        "survivors": missed,
        "mutants": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(summary, indent=1) + "\n")
    temporary.replace(path)


def _report(everything: list[Mutant], known: dict[str, dict[str, Any]], options: argparse.Namespace) -> int:
    """Print the survivors and the share that was caught."""
    _write(options.out, everything, known)
    rows = [known[m.key] for m in everything if m.key in known]
    missed = [row for row in rows if row["outcome"] not in CAUGHT]
    for row in missed:
        print(f"{row['outcome']} {row['file']}:{row['line']}\n  - {row['original']}\n  + {row['mutated']}")
        if row.get("why"):
            print(f"  because {row['why']}")
    share = (len(rows) - len(missed)) / len(rows) if rows else 0.0
    caught, why = len(rows) - len(missed), sum(bool(row.get("why")) for row in missed)
    print(f"caught {caught} of {len(rows)} mutants ({100 * share:.1f} %), {why} of {len(missed)} survivors explained")
    return 0 if share >= options.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
