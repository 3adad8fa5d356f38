"""The tables of a report: by data set, over all of them, against a reference, costs, and what the data would choose."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from ornstein.bench import statistics
from ornstein.bench.compared import Compared
from ornstein.bench.page import Table
from ornstein.bench.statistics import Interval
from ornstein.envs import scores

GAP = "-"

NARROW = (
    "Intervals of few seeds are too narrow: of normal runs with five seeds they hold the true mean about 84 times in "
    "100 on one data set and 89 times over three, with three seeds 75 and 84 times, not 95 times."
)
"""What a bootstrap of few runs is worth; tests/bench/test_statistics.py counts it."""


def by_data(found: Compared, resamples: int) -> Table:
    """Mean and interval of each system on each data set."""

    def cell(arm: str, data: str) -> str:
        return _cell(found.values(arm, data), found, resamples)

    scale = "Scores are D4RL's: 0 random, 100 expert. " if found.scored() else ""
    note = (
        f"Final checkpoint: mean over seeds and 95 % bootstrap interval. {scale}{GAP}: no row. {NARROW} "
        "One seed has none."
    )
    return _grid("Final checkpoint by data set", note, found, found.arms, cell)


def best(found: Compared, resamples: int) -> Table | None:
    """The best evaluations during training; None if no row has one."""
    if not any("best_return_mean" in row for data in found.data for row in found.on(data)):
        return None

    def cell(arm: str, data: str) -> str:
        rows = [row for row in found.cells.get((arm, data), {}).values() if "best_return_mean" in row]
        if not rows:
            return GAP
        values = np.array([row["best_return_mean"] for row in rows])
        if found.unit(data) == "score":
            values = scores.score(rows[0]["env"], values)
        return _cell(values, found, resamples)

    note = (
        "NOT comparable with the final checkpoint: the best of all evaluations during training, chosen by its true "
        "return on the very episodes it is reported on, as several papers do. It can only be higher."
    )
    return _grid("Best evaluation during training", note, found, found.arms, cell)


def overall(found: Compared, reference: str, resamples: int) -> Table | None:
    """Means over data sets, interquartile means, improvement over the reference, the highest first; None: no scores."""
    if not found.scored():
        return None
    whole = {arm: aggregate(found, arm, resamples) for arm in found.arms}
    order = sorted(found.arms, key=lambda arm: -pair[1].estimate if (pair := whole[arm]) else math.inf)
    head = ("system", "mean score", "interquartile mean", f"P(better than {reference})")
    rows = []
    for arm in order:
        better = improvement(found, arm, reference, resamples)
        means = map(_shown, both) if (both := whole[arm]) else (GAP, GAP)
        rows.append((arm, *means, _shown(better, 2) if better else GAP))
    note = (
        f"Scores over {', '.join(found.scored())}: 95 % stratified bootstrap intervals, too narrow where seeds are "
        "few, none where a data set has a single run; every data set counts alike. Systems with a missing row have no "
        f"entry ({GAP}). P, over all data sets ({', '.join(found.data)}): the probability that a run is better than "
        f"one of {reference} on the same data, ties half."
    )
    return Table("Over all data sets", note, head, tuple(rows))


def costs(found: Compared) -> Table:
    """What each system took: gradient steps of all stages together, milliseconds of an act, seconds of training."""
    rows = [
        (arm, _steps(found, arm), *(_shown_median(found, arm, name) for name in ("act_ms_median", "train_seconds")))
        for arm in found.arms
    ]
    note = (
        "Gradient steps are those of all stages together: --steps counts per stage, and some systems learn in several. "
        "Times are medians over rows; act: one call for all episodes side by side."
    )
    return Table("Steps and times", note, ("system", "gradient steps in total", "act ms", "training s"), tuple(rows))


def paired(found: Compared, reference: str, resamples: int) -> Table:
    """Differences to the reference, paired by seed."""

    def cell(arm: str, data: str) -> str:
        return _cell(found.differences(arm, reference, data), found, resamples)

    others = tuple(arm for arm in found.arms if arm != reference)
    note = (
        f"Result minus that of {reference} with the same seed, so judged on the same episodes: mean and 95 % bootstrap "
        "interval over pairs, too narrow where seeds are few; a single pair has none."
    )
    table = _grid(f"Paired differences to {reference}", note, found, others, cell)
    if not (scored := found.scored()):
        return table
    rows = []
    for row in table.rows:
        whole = difference(found, row[0], reference, resamples)
        rows.append((*row, _shown(whole) if whole else GAP))
    return table._replace(head=(*table.head, f"all {len(scored)} (score)"), rows=tuple(rows))


def chosen(found: Compared) -> Table | None:
    """Rank correlations between fitted-Q evaluation and return; None if no row has an estimate."""
    rows = []
    for data in found.data:
        value, estimate = estimates(found, data)
        if not len(value):
            continue
        groups = [pair for arm in found.arms if len((pair := estimates(found, data, arm))[0])]
        means = np.array([[x.mean() for x in pair] for pair in groups]).T
        across = statistics.rank_correlation(*means) if len(groups) > 2 else float("nan")
        regret = value.max() - value[estimate.argmax()]
        within = statistics.rank_correlation(value, estimate)
        rows.append((data, str(len(value)), _number(within, 2), _number(across, 2), _number(regret)))
    if not rows:
        return None
    note = (
        "Fitted-Q evaluation of each final checkpoint on its training data against its true return: Spearman's rank "
        "correlation over all checkpoints, and over the systems' means. Regret: how much return is lost by taking the "
        "checkpoint with the highest estimate instead of the best one."
    )
    head = ("data", "checkpoints", "rank correlation", "of system means", "regret of choosing by it")
    return Table("Choosing without a simulator", note, head, tuple(rows))


def estimates(
    found: Compared, data: str, arm: str | None = None
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """True returns and fitted-Q estimates of the rows that have both."""
    rows = found.on(data) if arm is None else list(found.cells.get((arm, data), {}).values())
    rows = [row for row in rows if row.get("fqe") is not None]
    return np.array([row["return_mean"] for row in rows]), np.array([row["fqe"] for row in rows])


def aggregate(found: Compared, arm: str, resamples: int) -> tuple[Interval, Interval] | None:
    """Mean and interquartile mean of the scores; None unless every row is there."""
    data = found.scored()
    if not data or not found.complete(arm, data):
        return None
    runs = [found.values(arm, one) for one in data]
    both = (statistics.mean, statistics.interquartile_mean)
    mean, middle = (statistics.bootstrap(runs, statistic, resamples=resamples) for statistic in both)
    return mean, middle


def improvement(found: Compared, arm: str, reference: str, resamples: int) -> Interval | None:
    """The probability of improvement over the reference on all data sets; None unless both have every row."""
    if arm == reference or not all(found.complete(one, found.data) for one in (arm, reference)):
        return None
    ours, theirs = ([found.values(one, data) for data in found.data] for one in (arm, reference))
    return statistics.bootstrap_improvement(ours, theirs, resamples=resamples)


def difference(found: Compared, arm: str, reference: str, resamples: int) -> Interval | None:
    """The mean paired difference of the scores over data sets; None unless both have every row."""
    data = found.scored()
    if not all(found.complete(one, data) for one in (arm, reference)):
        return None
    pairs = [found.differences(arm, reference, one) for one in data]
    return statistics.bootstrap(pairs, statistics.mean, resamples=resamples)


def interval(values: Float[np.ndarray, " n"], resamples: int) -> Interval:
    """The mean of one group of runs with its bootstrap interval."""
    return statistics.bootstrap([values], statistics.mean, resamples=resamples)


def _grid(title: str, note: str, found: Compared, arms: Sequence[str], cell: Callable[[str, str], str]) -> Table:
    head = ("system", *(f"{data} ({found.unit(data)})" for data in found.data))
    return Table(title, note, head, tuple((arm, *map(partial(cell, arm), found.data)) for arm in arms))


def _cell(values: Float[np.ndarray, " n"], found: Compared, resamples: int) -> str:
    """The mean over seeds and its interval; a gap without any."""
    return _shown(interval(values, resamples)) + _short(len(values), found) if len(values) else GAP


def _short(n: int, found: Compared) -> str:
    """How many seeds there are, where some are missing."""
    return "" if n == len(found.seeds) else f"\n{n} of {len(found.seeds)} seeds"


def _shown(value: Interval, digits: int | None = None) -> str:
    """The estimate on one line, its interval on the next if it has one."""
    told = _number(value.estimate, digits)
    if value.low is None or value.high is None:
        return told
    return f"{told}\n[{_number(value.low, digits)}, {_number(value.high, digits)}]"


def _number(value: float, digits: int | None = None) -> str:
    if not np.isfinite(value):
        return GAP
    if digits is None:
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 1 else 2
    return f"{value:.{digits}f}"


def _steps(found: Compared, arm: str) -> str:
    """The total steps of a system's runs: several where its presets for the data sets differ."""
    totals = {row["total_steps"] for row in found.of(arm) if row.get("total_steps") is not None}
    return ", ".join(f"{total:,}" for total in sorted(totals)) or GAP


def _shown_median(found: Compared, arm: str, name: str) -> str:
    rows = found.of(arm)
    return _number(float(np.median([row[name] for row in rows]))) if rows else GAP
