"""The report of a bench: rows in, Markdown, PNG and one HTML page out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ornstein import checkpoint
from ornstein.bench import figures, rows, statistics, tables
from ornstein.bench.compared import Compared, compare
from ornstein.bench.page import Section, markdown, page
from ornstein.checkpoint.files import replacing


def report(
    source: Path,
    out: Path,
    *,
    reference: str | None = None,
    resamples: int = 2000,
    title: str = "Bench",
    command: str = "",
) -> dict[str, Any]:
    """Write `report.md`, `report.html` and `figures/` to `out`; the tables as plain values.

    `reference`: the system that the others are compared with; the first of the rows if not named.
    """
    if resamples < 1:
        raise ValueError(f"--resamples {resamples}: give at least 1")
    found = opened(source)
    reference = _reference(found, reference)
    sections = list(_sections(found, source, out, reference, resamples))
    told = command or f"ornstein report {source}"
    for name, text in (
        ("report.md", markdown(title, sections, told, out)),
        ("report.html", page(title, sections, told)),
    ):
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {
        "out": str(out),
        "page": str(out / "report.html"),
        "reference": reference,
        "systems": list(found.arms),
        "data": list(found.data),
        "seeds": list(found.seeds),
        "missing": list(found.missing),
        "left_out": list(found.left_out),
        "overall": _overall(found, reference, resamples),
        "tables": {table.title: [table.head, *table.rows] for section in sections for table in section.tables},
        "figures": [str(figure.file) for section in sections for figure in section.figures],
    }


def opened(source: Path) -> Compared:
    """The rows of a bench's directory, sorted, with what its plan wanted."""
    if not source.is_dir():
        raise ValueError(f"{source}: no such directory; give the one that holds rows.jsonl")
    if not (source / "rows.jsonl").exists():
        raise ValueError(f"{source}: holds no rows.jsonl; run ornstein bench ... --out {source} first")
    plan = source / "plan.json"
    wanted = checkpoint.read_json(plan)["rows"] if plan.exists() else []
    return compare(rows.read(source / "rows.jsonl"), wanted)


def _reference(found: Compared, name: str | None) -> str:
    if name is not None and name not in found.arms:
        raise ValueError(f"--reference {name}: not among the systems of the rows, which are {', '.join(found.arms)}")
    return name or found.arms[0]


def _sections(found: Compared, source: Path, out: Path, reference: str, resamples: int) -> Iterator[Section]:
    place = out / "figures"
    yield _about(found, source)
    if gaps := (*found.missing, *(f"left out, not the newest: {line}" for line in found.left_out)):
        yield Section("Missing rows", "These are gaps in every table and picture, never averaged over.", lines=gaps)
    whole = tables.overall(found, reference, resamples)
    yield Section(
        "Over all data sets",
        _unscored(found),
        tables=(whole,) if whole else (),
        figures=tuple(figures.overall(found, reference, resamples, place)),
    )
    yield Section(
        "Final checkpoint by data set",
        tables=(tables.by_data(found, resamples),),
        figures=tuple(figures.by_data(found, resamples, place)),
    )
    if len(found.arms) > 1:
        yield Section(f"Paired differences to {reference}", tables=(tables.paired(found, reference, resamples),))
    if best := tables.best(found, resamples):
        yield Section("Best evaluation during training", tables=(best,))
    yield Section("Steps and times", tables=(tables.costs(found),))
    yield _curves(found, source, place)
    if chosen := tables.chosen(found):
        yield Section("Choosing without a simulator", tables=(chosen,), figures=tuple(figures.estimates(found, place)))


def _unscored(found: Compared) -> str:
    """Which data sets are left out of means, in words; empty if all have scores."""
    without = [data for data in found.data if data not in found.scored()]
    told = f"Data sets without reference returns ({', '.join(without)}) are compared by return, each for itself."
    return told if without else ""


def _curves(found: Compared, source: Path, place: Path) -> Section:
    """Returns during training, or why there are none."""
    drawn = tuple(figures.learning(found, source, place))
    if any(figure.file.name.startswith("learning-") for figure in drawn):
        why = ""
    elif any(row["protocol"]["score_every"] for arm in found.arms for row in found.of(arm)):
        why = f"No return during training: it was measured, but {source / 'runs'} lacks the metrics of the runs."
    else:
        why = "No return during training: it was not measured; ornstein bench --score-every N does so every N steps."
    return Section("Learning curves", why, figures=drawn)


def _about(found: Compared, source: Path) -> Section:
    """How the rows were made: commands, protocol, versions; several of a kind are all named."""
    every = [row for data in found.data for row in found.on(data)]
    plan = source / "plan.json"
    commands = checkpoint.read_json(plan)["commands"] if plan.exists() else []

    def kinds(name: str) -> str:
        return ", ".join(sorted({str(row[name]) for row in every}))

    seeds = ", ".join(map(str, found.seeds))
    protocols = {
        f"final checkpoint, {p['episodes']} episodes, evaluation seed {p['eval_seed']}, "
        + ("the environments' own time limit" if p["max_steps"] is None else f"{p['max_steps']} steps at most")
        for p in (row["protocol"] for row in every)
    }
    asked = sorted({row.get("asked_steps") or 0 for row in every})
    steps = [f"{n:,} per stage" if n else "each preset's own" for n in asked]
    versions = {", ".join(f"{name} {version}" for name, version in row["versions"].items() if version) for row in every}
    lines = [
        *(f"rows made by: {command}" for command in commands),
        *(f"protocol: {told}" for told in sorted(protocols)),
        f"{len(every)} rows: {len(found.arms)} systems, {len(found.data)} data sets, seeds {seeds}",
        f"gradient steps: {', '.join(steps)}; in total by system under Steps and times",
        f"environments: {kinds('env')}; {' | '.join(sorted(versions))}",
        f"torch {kinds('torch')}, ornstein {kinds('ornstein')}, on {kinds('device')}",
        *(["several versions of the environments' packages: compare with care"] if len(versions) > 1 else []),
        *_codes(every),
        *(["several protocols: compare with care"] if len(protocols) > 1 else []),
    ]
    return Section("How it was made", lines=tuple(lines))


def _codes(every: Sequence[rows.Row]) -> list[str]:
    """A line unless all rows are known to be of the same code; those of older versions do not say."""
    known = sorted({row["code"] for row in every if row.get("code")})
    unknown = sum(not row.get("code") for row in every)
    if len(known) < 2 and not unknown:
        return []
    if not known:
        return [f"{unknown} rows of code that they do not name: compare with care"]
    told = [f"of {len(known)} version{'s' if len(known) > 1 else ''} of the code ({', '.join(known)})"]
    told += [f"{unknown} of code that they do not name"] if unknown else []
    return [f"rows {' and '.join(told)}: compare with care"]


def _overall(found: Compared, reference: str, resamples: int) -> dict[str, Any]:
    """The numbers over all data sets as plain values; None where rows are missing or no score is known."""
    values: dict[str, Any] = {}
    for arm in found.arms:
        whole = tables.aggregate(found, arm, resamples)
        better = tables.improvement(found, arm, reference, resamples)
        apart = None if arm == reference or not found.scored() else tables.difference(found, arm, reference, resamples)
        values[arm] = {
            "mean": whole and whole[0]._asdict(),
            "interquartile_mean": whole and whole[1]._asdict(),
            "improvement": better and better._asdict(),
            "difference": apart and apart._asdict(),
        }
    ranks = {data: tables.estimates(found, data) for data in found.data}
    values_of = {data: float(statistics.rank_correlation(*pair)) for data, pair in ranks.items() if len(pair[0])}
    return {"systems": values, "fqe_rank_correlation": values_of, "fqe_mean": _mean(list(values_of.values()))}


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
