"""Statistics of few runs against scipy, closed forms and brute force."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ornstein.bench import statistics, tables


def runs(seed=0, sizes=(5, 5, 5), scale=10.0):
    source = np.random.default_rng(seed)
    return [source.normal(i, scale, size) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", [(4,), (5, 5), (3, 7, 2), (1,), (9, 9)])
def test_the_interquartile_mean_is_scipys_trimmed_mean_of_all_runs(sizes):
    found = runs(sizes=sizes)
    ours = statistics.interquartile_mean([task[None] for task in found])
    assert ours[0] == pytest.approx(stats.trim_mean(np.concatenate(found), 0.25))


def test_the_interquartile_mean_by_hand():
    assert statistics.interquartile_mean([np.array([[0.0, 100.0]]), np.array([[2.0, 4.0]])])[0] == 3.0


def test_the_mean_counts_every_task_alike():
    assert statistics.mean([np.array([[1.0, 3.0]]), np.array([[5.0, 6.0, 7.0, 8.0]])])[0] == (2 + 6.5) / 2


def test_the_bootstrap_of_one_task_is_scipys():
    (values,) = runs(sizes=(30,))
    ours = statistics.bootstrap([values], statistics.mean, resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=0).confidence_interval
    assert ours.estimate == pytest.approx(values.mean())
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.03 * width and abs(ours.high - theirs.high) < 0.03 * width


def test_the_bootstrap_draws_within_tasks():
    """The closed form: the mean over k tasks of n_i runs has variance sum s_i^2 / n_i / k^2, means apart or not."""
    found = [task + 1000 * i for i, task in enumerate(runs(sizes=(40, 60, 50)))]
    reach = 1.96 * np.sqrt(sum(task.var() / len(task) for task in found)) / 3
    ours = statistics.bootstrap(found, statistics.mean, resamples=20_000)
    centre = np.mean([task.mean() for task in found])
    assert ours == pytest.approx((centre, centre - reach, centre + reach), abs=0.05 * reach)


@pytest.mark.parametrize(("seeds", "sets", "share"), [(5, 1, 0.84), (5, 3, 0.89), (3, 1, 0.75), (3, 3, 0.84)])
def test_of_few_runs_the_interval_is_too_narrow_by_as_much_as_a_report_says(seeds, sets, share):
    """How often the 95 % interval of normal runs holds their true mean."""
    source, held, trials = np.random.default_rng(0), 0, 2000
    for seed in range(trials):
        found = list(source.normal(size=(sets, seeds)))
        _, low, high = statistics.bootstrap(found, statistics.mean, resamples=500, seed=seed)
        held += low <= 0 <= high
    assert held / trials == pytest.approx(share, abs=0.03)
    assert f"{100 * share:.0f}" in tables.NARROW


def test_the_level_sets_the_width():
    wide, narrow = (statistics.bootstrap(runs(), statistics.mean, level=level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


@pytest.mark.parametrize("sizes", [(1,), (1, 1, 1), (5, 1, 5)])
def test_there_is_no_interval_where_a_task_has_a_single_run(sizes):
    """Drawn anew a single run is itself, so that the interval would say that chance plays no part."""
    found, several = runs(sizes=sizes), runs(sizes=[4] * len(sizes))
    middle = np.mean([task.mean() for task in found])
    assert statistics.bootstrap(found, statistics.mean) == (pytest.approx(middle), None, None)
    for pair in ((found, several), (several, found)):
        assert statistics.bootstrap_improvement(*pair)[1:] == (None, None)
    assert None not in statistics.bootstrap_improvement(several, several)
    share, low, high = statistics.profile(found, np.array([-100.0, 100.0]))
    assert share == pytest.approx([1.0, 0.0]) and np.isnan([low, high]).all()


def test_improvement_is_a_count_over_pairs_and_mann_whitneys_u():
    ours, theirs = np.array([1.0, 4.0, 4.0, 7.0]), np.array([0.0, 4.0, 9.0])
    count = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(ours, theirs)) / 12
    found = statistics.bootstrap_improvement([ours], [theirs]).estimate
    assert found == pytest.approx(count)
    assert found == pytest.approx(stats.mannwhitneyu(ours, theirs).statistic / 12)
    assert statistics.bootstrap_improvement([theirs], [ours]).estimate == pytest.approx(1 - count)


def test_improvement_is_averaged_over_tasks():
    high, low = np.array([5.0, 6.0]), np.array([1.0, 2.0])
    found = statistics.bootstrap_improvement([high, low, high], [low, high, low])
    assert found == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_the_profile_is_the_share_above_each_threshold():
    found = [np.array([1.0, 2.0]), np.array([2.0, 3.0, 4.0, 5.0])]
    share, low, high = statistics.profile(found, np.array([0.0, 1.0, 2.5, 5.0]))
    assert share == pytest.approx([1.0, (0.5 + 1.0) / 2, (0.0 + 0.75) / 2, 0.0])
    assert (low <= share).all() and (share <= high).all() and high[2] > low[2]


@pytest.mark.parametrize("ties", [False, True])
def test_the_rank_correlation_is_spearmans(ties):
    x, y = np.random.default_rng(1).normal(size=(2, 20))
    y = x + y
    if ties:
        x, y = x.round(), y.round()
    assert statistics.rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert statistics.ranks(x) == pytest.approx(stats.rankdata(x))
    assert np.isnan(statistics.rank_correlation(x, np.zeros(20)))


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        statistics.bootstrap([np.array([1.0]), np.array([])], statistics.mean)
    with pytest.raises(ValueError, match="2 and 3 values"):
        statistics.rank_correlation(np.zeros(2), np.zeros(3))
