"""The statistics of a study against SciPy, explicit linear algebra, hand-worked numbers and simulated studies."""

import itertools

import numpy as np
import pytest
from scipy import linalg, stats

from benchmarks import simulations
from pocketvit.studies.analysis.findings import noisy_rows
from pocketvit.studies.analysis.power import detectable_with, power_of, seeds_needed, student
from pocketvit.studies.analysis.spread import pooled_spread
from pocketvit.studies.analysis.stats import bootstrap_interval, bootstrap_tail, compare, holm, summarise

STUDIES = 4000
"""Simulated studies; 95 % of them are counted to within ± 0.7 points (two standard deviations)."""


def table(values: np.ndarray, first_seed: int = 0) -> dict[str, dict[int, float]]:
    """Accuracies of rows r0, r1, … from an array (rows, seeds)."""
    return {f"r{i}": {first_seed + s: float(v) for s, v in enumerate(row)} for i, row in enumerate(values)}


def noise_by_null_space(accuracies) -> tuple[float, int]:
    """Residual variance of row + seed and its degrees of freedom: the part of the data that no choice of row and
    seed effects can explain is its projection on the null space of the design."""
    runs = [(row, seed) for row, values in accuracies.items() for seed in values]
    rows, seeds = sorted({row for row, _ in runs}), sorted({seed for _, seed in runs})
    design = np.array([[row == r for r in rows] + [seed == s for s in seeds] for row, seed in runs], dtype=float)
    free = linalg.null_space(design.T)  # (N, df)
    y = np.array([accuracies[row][seed] for row, seed in runs])
    return float(np.sum((free.T @ y) ** 2) / free.shape[1]), free.shape[1]


RAGGED = {
    "baseline": {0: 0.930, 1: 0.934, 2: 0.932, 3: 0.929, 4: 0.931},
    "better": {0: 0.939, 1: 0.941, 2: 0.937},
    "same": {1: 0.933, 2: 0.932, 4: 0.930},
    "once": {3: 0.925},
    "apart": {7: 0.935, 8: 0.938},
}


def nightly(*values: int):
    """A case between others, for which there is time at night."""
    return pytest.param(*values, marks=pytest.mark.nightly)


@pytest.fixture
def without_power(monkeypatch):
    """Leave out what a study would have detected: most of the time of a comparison, and not looked at in thousands."""
    monkeypatch.setattr("pocketvit.studies.analysis.stats.detectable_difference", lambda *_: float("nan"))


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 9])
def test_two_rows_are_the_paired_t_test(num_seeds):
    accuracies = table(np.random.default_rng(num_seeds).normal(0.93, 0.002, (2, num_seeds)))
    found = compare(accuracies, {"r1": "r0"})["r1"]
    expected = stats.ttest_rel(list(accuracies["r1"].values()), list(accuracies["r0"].values()))
    assert found.paired and found.df == pytest.approx(num_seeds - 1)
    np.testing.assert_allclose(found.p, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(found.interval, expected.confidence_interval(0.95), rtol=1e-9)


def test_two_rows_without_a_common_seed_lie_between_students_and_welchs_t_test():
    accuracies = {"a": {0: 0.930, 1: 0.934, 2: 0.933}, "b": {10: 0.940, 11: 0.937}}
    found = compare(accuracies, {"b": "a"})["b"]
    a, b = (np.array(list(values.values())) for values in accuracies.values())
    assert not found.paired and found.num_seeds == 2 and found.difference == pytest.approx(b.mean() - a.mean())
    pooled = (2 * a.var(ddof=1) + b.var(ddof=1)) / 3
    of_a, of_b = (2 * a.var(ddof=1) + pooled) / 3, (b.var(ddof=1) + pooled) / 2
    assert found.stderr == pytest.approx(np.sqrt(of_a / 3 + of_b / 2))
    student, welch = (stats.ttest_ind(b, a, equal_var=equal) for equal in (True, False))
    ends = sorted(abs(test.statistic) for test in (student, welch))
    assert ends[0] < found.difference / found.stderr < ends[1]


@pytest.mark.parametrize(("rows", "seeds"), [(2, 3), (4, 2), (12, 3)])
def test_noise_of_a_full_table_is_what_double_centring_leaves(rows, seeds):
    values = np.random.default_rng(rows).normal(0.93, 0.002, (rows, seeds))
    residual = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    spread = pooled_spread(table(values))
    assert spread.noise_df == (rows - 1) * (seeds - 1)
    np.testing.assert_allclose(spread.noise, np.sum(residual**2) / spread.noise_df, rtol=1e-9)
    np.testing.assert_allclose(spread.total, np.mean(values.var(axis=1, ddof=1)), rtol=1e-9)
    # Satterthwaite's approximation for a sum of mean squares, as textbooks have it for the balanced layout.
    between = max(rows * values.mean(0).var(ddof=1), spread.noise)
    parts = np.array([between / rows, (rows - 1) / rows * spread.noise])
    df = parts.sum() ** 2 / np.sum(parts**2 / [seeds - 1, spread.noise_df])
    assert spread.total_df == pytest.approx(df)


def test_noise_of_a_ragged_table_is_the_part_outside_the_design():
    noise, df = noise_by_null_space(RAGGED)
    spread = pooled_spread(RAGGED)
    assert spread.noise_df == df
    np.testing.assert_allclose(spread.noise, noise, rtol=1e-9)

    found = compare(RAGGED, {row: "baseline" for row in RAGGED if row != "baseline"})
    assert [(c.paired, c.num_seeds) for c in found.values()] == [(True, 3), (True, 3), (True, 1), (False, 2)]
    for row, comparison in found.items():
        difference = np.mean(list(RAGGED[row].values())) - np.mean(list(RAGGED["baseline"].values()))
        variance, df = error_by_matrices(RAGGED, row, "baseline")
        p = 2 * stats.t.sf(abs(difference) / np.sqrt(variance), df)
        np.testing.assert_allclose([comparison.difference, comparison.df, comparison.p], [difference, df, p], rtol=1e-9)


def error_by_matrices(accuracies, row, reference) -> tuple[float, float]:
    """The estimated variance as y' Q y with an explicit Q (N, N), and tr(Q S)² / tr(Q S Q S) with the covariance S."""
    runs = [(r, s) for r, values in accuracies.items() for s in values]
    y = np.array([accuracies[r][s] for r, s in runs])
    of_row = np.array([[r == name for name in accuracies] for r, _ in runs], dtype=float)
    of_seed = np.array([[s == seed for seed in sorted({s for _, s in runs})] for _, s in runs], dtype=float)
    own, pooled, parts = [], [], []
    for design in (np.hstack([of_row, of_seed]), of_row):
        free = linalg.null_space(design.T)
        projection = free @ free.T
        df = [np.sum(np.diag(projection)[of_row[:, i] == 1]) for i in range(len(accuracies))]
        squares = [projection @ np.diag(of_row[:, i]) @ projection for i in range(len(accuracies))]
        pooled.append(projection / np.trace(projection))
        own.append([q / d if d > 1e-9 else pooled[-1] for q, d in zip(squares, df, strict=True)])
        parts.append([(d * q + pooled[-1]) / (d + 1) for q, d in zip(own[-1], df, strict=True)])
    common = len(accuracies[row].keys() & accuracies[reference].keys())
    share = common / (len(accuracies[row]) * len(accuracies[reference]))
    form = np.zeros((len(y), len(y)))
    for name in (row, reference):
        i = list(accuracies).index(name)
        form += share * parts[0][i] + (1 / len(accuracies[name]) - share) * parts[1][i]
    noise, total = (y @ q @ y for q in pooled)
    covariance = np.diag(of_row @ [y @ q @ y for q in own[0]]) + max(0, total - noise) * of_seed @ of_seed.T
    product = form @ covariance
    return y @ form @ y, np.trace(product) ** 2 / np.trace(product @ product)


def test_degrees_of_freedom_between_rows_with_the_same_seeds_count_the_seeds_as_far_as_they_matter():
    """If the seed is all the spread, R rows with the same n seeds show n values, not R n."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, 4))
    same = table(rng.normal(size=4) + 1e-6 * noise)
    assert pooled_spread(same).total_df == pytest.approx(3, rel=1e-3)
    noise -= noise.mean(0)
    assert pooled_spread(table(noise)).total_df == pytest.approx(6 * 3), "and all of them if it does not matter"
    apart = {f"r{i}": {10 * i + s: v for s, v in enumerate(row.values())} for i, row in enumerate(same.values())}
    assert pooled_spread(apart).total_df == pytest.approx(6 * 3)


def test_holm_by_hand():
    """Sorted 0.005 0.01 0.03 0.04, times 4 3 2 1: 0.02 0.03 0.06 0.04, and no value below the one before it."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    assert holm([]) == []
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_summary_is_numpys():
    found = summarise({3: 0.91, 1: 0.94, 2: 0.93})
    values = [0.91, 0.94, 0.93]
    np.testing.assert_allclose([found.mean, found.std], [np.mean(values), np.std(values, ddof=1)])


# ---------------------------------------------------------------- simulated studies


def simulated(rows: int, seeds: int, seed_std: float = 0.003, noise_std: float = 0.002):
    """Accuracies (rows, seeds) of studies in which row i is truly 0.002 i better than row 0."""
    rng = np.random.default_rng([rows, seeds])
    for _ in range(STUDIES):
        truth = 0.93 + 0.002 * np.arange(rows)[:, None]
        yield truth + rng.normal(0, seed_std, (1, seeds)) + rng.normal(0, noise_std, (rows, seeds))


@pytest.mark.parametrize(("rows", "seeds"), [(2, 2), nightly(2, 5), nightly(5, 2), (6, 3)])
@pytest.mark.usefixtures("without_power")
def test_the_interval_covers_the_truth_95_times_of_100(rows, seeds):
    covered = 0
    for values in simulated(rows, seeds):
        low, high = compare(table(values), {"r1": "r0"})["r1"].interval
        covered += low <= 0.002 <= high
    # Exact for two rows. With more, each row's own variance makes few seeds somewhat too careful.
    assert 0.94 < covered / STUDIES < (0.96 if rows == 2 else 0.98)


@pytest.mark.usefixtures("without_power")
def test_the_interval_of_a_row_with_one_seed_covers_as_well():
    covered = 0
    for values in simulated(4, 3):
        accuracies = table(values)
        accuracies["r1"] = {2: accuracies["r1"][2]}
        low, high = compare(accuracies, {"r1": "r0"})["r1"].interval
        covered += low <= 0.002 <= high
    assert covered / STUDIES > 0.94  # a ragged table may be a little too careful


@pytest.mark.long
@pytest.mark.usefixtures("without_power")
def test_the_unpaired_interval_is_careful_whether_or_not_seeds_matter():
    for seed_std, noise_std in ((0.003, 0.0005), (0.0, 0.002)):
        covered = 0
        spreads = (seed_std, noise_std)
        for values, other in zip(simulated(3, 3, *spreads), simulated(1, 4, *spreads), strict=True):
            accuracies = table(values) | {"apart": {100 + s: float(v) for s, v in enumerate(other[0])}}
            low, high = compare(accuracies, {"apart": "r0"})["apart"].interval
            covered += low <= 0.0 <= high
        assert covered / STUDIES > 0.94


@pytest.mark.long
@pytest.mark.usefixtures("without_power")
def test_false_alarms_of_a_whole_study_stay_below_5_of_100():
    """Six rows that are all alike: how often does any of the five comparisons claim a difference?"""
    rng, alarms = np.random.default_rng(6), 0
    for _ in range(STUDIES):
        found = compare(table(rng.normal(0.93, 0.002, (6, 3))), {f"r{i}": "r0" for i in range(1, 6)})
        alarms += any(c.p_holm <= 0.05 for c in found.values())
    assert 0.02 < alarms / STUDIES < 0.055  # Holm's bound is 5; the rest is the simulation's own scatter


@pytest.mark.parametrize(("noisy", "factor"), [(0, 2), (0, 4), (1, 2), (1, 4)], ids=str)
def test_a_row_or_a_baseline_that_scatters_more_raises_no_more_false_alarms(noisy, factor):
    """Ten rows without an effect and a baseline; one variance for all rows gives up to 18 of 100."""
    y = simulations.simulated(11, 3, 10_000, {noisy: factor})
    alarms = {m: np.mean(simulations.p_values(y, m).min(1) <= 0.05 / 10) for m in simulations.METHODS}
    assert alarms["moderated"] < 0.065 and alarms["pooled"] > 0.055, alarms  # one in 400 studies is the scatter


@pytest.mark.parametrize(("rows", "seeds"), [(2, 3), (3, 3), (6, 2), (11, 3)])
def test_the_simulations_use_the_statistics_of_a_study(rows, seeds):
    y = 0.93 + 0.002 * simulations.simulated(rows, seeds, 60, {0: 3, rows - 1: 30}, key=3)
    difference, stderr, df = simulations.errors_of(y, "moderated")
    for study, *expected in zip(y, difference, stderr, df, strict=True):
        accuracies = table(study)
        found = compare(accuracies, {f"r{i}": "r0" for i in range(1, rows)}, apart=noisy_rows(accuracies)).values()
        np.testing.assert_allclose([[c.difference, c.stderr, c.df] for c in found], np.transpose(expected), rtol=1e-6)


def test_a_difference_is_that_of_the_means_over_all_seeds():
    """The baseline's further seeds count: 1/3 + 1/5 of the noise variance, in place of 2/3 on the common seeds."""
    values = np.random.default_rng(5).normal(0.93, 0.002, (12, 5))
    values -= values.mean(0) - 0.93  # no effect of the seeds is seen
    values[:, 3:] = 0.93 + np.tile([0.002, -0.002], (12, 1)) * np.resize([1, -1], 12)[:, None]
    accuracies = {name: dict(list(row.items())[: 5 if name == "r0" else 3]) for name, row in table(values).items()}
    found = compare(accuracies, {"r1": "r0"})["r1"]
    assert found.difference == pytest.approx(values[1, :3].mean() - values[0].mean())
    assert found.paired and found.num_seeds == 3


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5])
def test_the_prediction_interval_of_one_more_run_holds_it_95_times_of_100(share):
    """In the layout that the paper's Table 2 had first, whatever share of the variance seeds make. As if they made all of
    it, the interval would hold 99.9 of 100."""
    rng, held = np.random.default_rng(int(10 * share)), 0
    for _ in range(STUDIES // 2):
        of_seed = rng.normal(0, np.sqrt(share), 6)
        runs = {f"r{i}": {s: of_seed[s] + rng.normal(0, np.sqrt(1 - share)) for s in range(n)}
                for i, n in enumerate([5, 3, 3, 5] + 13 * [3])}  # fmt: skip
        spread, values = pooled_spread(runs), list(runs["r1"].values())
        half = stats.t.ppf(0.975, spread.total_df) * np.sqrt(spread.total * (1 + 1 / len(values)))
        held += abs(np.mean(values) - of_seed[5] - rng.normal(0, np.sqrt(1 - share))) <= half
    assert 0.935 < held / (STUDIES // 2) < 0.975


# ---------------------------------------------------------------- rows that scatter more than others


def test_two_groups_are_told_apart_by_scipys_f_test():
    """The row's variance against the pooled one of the others, at 1 % over the number of rows."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        values = rng.normal(0.93, 0.002, (3, 4)) * np.array([1, 1, rng.uniform(1, 8)])[:, None]
        values += 0.93 - values.mean(1, keepdims=True)
        variances = values.var(axis=1, ddof=1)
        order = np.argsort(variances)
        p = stats.f.sf(variances[order[2]] / variances[order[:2]].mean(), 3, 6)
        # With three rows, two can be noisy only beside half of the rows, so no more than one.
        assert noisy_rows(table(values)) == ([f"r{order[2]}"] if p < 0.01 / 3 else [])


@pytest.mark.parametrize(
    ("rows", "seeds"), [(2, 5), (6, 2), *(nightly(*of) for of in ((2, 3), (3, 2), (3, 3), (3, 5), (6, 3), (6, 5)))]
)
@pytest.mark.usefixtures("without_power")
def test_setting_noisy_rows_apart_leaves_the_interval_its_95_of_100(rows, seeds):
    """Where all rows scatter alike, one is set apart now and then by chance; the intervals must bear that."""
    covered = apart = 0
    for values in simulated(rows, seeds, seed_std=0.0):  # without a part that the rows share, chance finds the most
        noisy = noisy_rows(table(values))
        low, high = compare(table(values), {"r1": "r0"}, apart=noisy)["r1"].interval
        covered += low <= 0.002 <= high
        apart += bool(noisy)
    assert 0.94 < covered / STUDIES < (0.96 if rows == 2 else 0.98)
    assert apart / STUDIES < 0.025


@pytest.mark.parametrize(("rows", "seeds"), [(3, 3), nightly(3, 5), (6, 2), nightly(6, 3)])
@pytest.mark.usefixtures("without_power")
def test_a_diverging_row_widens_its_own_comparison_alone(rows, seeds):
    """A row that loses tens of points with some seeds: the others' intervals are as wide as without it, and cover."""
    rng, covered, widths, without, missed = np.random.default_rng([rows, seeds]), 0, [], [], 0
    for values in itertools.islice(simulated(rows, seeds), 1000):
        calm = table(values[:-1])
        values[-1] -= rng.uniform(0, 0.6, seeds)
        noisy = noisy_rows(table(values))
        missed += f"r{rows - 1}" not in noisy
        low, high = compare(table(values), {"r1": "r0"}, apart=noisy)["r1"].interval
        covered += low <= 0.002 <= high
        widths.append(high - low)
        low, high = compare(calm, {"r1": "r0"})["r1"].interval
        without.append(high - low)
    assert covered / 1000 > 0.93
    assert np.median(widths) < 1.1 * np.median(without)
    assert missed / 1000 < 0.1  # two seeds may both lose as much


# ---------------------------------------------------------------- bootstrap


@pytest.mark.parametrize("num_seeds", [8, 15, 40])
def test_bootstrap_is_scipys_at_the_same_percentiles(num_seeds):
    values = np.random.default_rng(num_seeds).normal(0.004, 0.002, num_seeds)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=50_000, confidence_level=1 - 2 * bootstrap_tail(num_seeds), method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(bootstrap_interval([values]), expected, atol=0.05 * (expected.high - expected.low))


def test_bootstrap_of_two_samples_is_scipys():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.94, 0.002, 9), rng.normal(0.93, 0.004, 12)
    expected = stats.bootstrap(
        (ours, theirs), lambda a, b, axis: a.mean(axis) - b.mean(axis), n_resamples=50_000, vectorized=True,
        confidence_level=1 - 2 * bootstrap_tail(9), method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    np.testing.assert_allclose(bootstrap_interval([ours, theirs]), expected, atol=0.05 * (expected.high - expected.low))


def test_bootstrap_of_eight_seeds_covers_as_much_as_it_says():
    """The plain percentile interval of eight normal values covers 90 % only."""
    samples = np.random.default_rng(9).normal(0, 0.002, (1000, 8))
    intervals = np.array([bootstrap_interval([values]) for values in samples])
    covered = np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0))
    assert 0.93 < covered < 0.97


def test_bootstrap_covers_the_truth_though_one_row_is_far_noisier():
    """So does t, by the rows' own variances; with one variance for all rows it would cover less than 85 of 100."""
    rng, by_t, resampled, studies = np.random.default_rng(8), 0, 0, 400
    for _ in range(studies):
        noise = rng.normal(0, 1, (6, 10)) * np.array([0.001, 0.006, 0.001, 0.001, 0.001, 0.001])[:, None]
        found = compare(table(0.93 + noise), {"r1": "r0"})["r1"]
        by_t += found.interval[0] <= 0 <= found.interval[1]
        resampled += found.bootstrap[0] <= 0 <= found.bootstrap[1]
    assert 0.91 < by_t / studies < 0.98
    assert 0.91 < resampled / studies < 0.98


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(("rows", "seeds", "comparisons"), [nightly(2, 3, 1), (6, 2, 5), nightly(6, 5, 1)])
@pytest.mark.usefixtures("without_power")
def test_power_is_what_simulated_studies_find(rows, seeds, comparisons):
    """The detectable difference is found in 80 % of studies at the level of Holm's first step."""
    std = 0.002
    difference = detectable_with(seeds, std, num_rows=rows, num_comparisons=comparisons)
    rng, found = np.random.default_rng([rows, seeds]), 0
    for _ in range(STUDIES):
        values = rng.normal(0, std, (rows, seeds))
        values[1] += difference
        found += compare(table(values), {"r1": "r0"})["r1"].p <= 0.05 / comparisons
    assert 0.78 < found / STUDIES < 0.82


@pytest.mark.parametrize(("ratio", "rows", "comparisons"), list(itertools.product([0.5, 1, 3], [2, 8], [1, 7])))
def test_seeds_needed_are_enough_and_one_less_is_not(ratio, rows, comparisons):
    def power(num_seeds: int) -> float:
        """By SciPy's own noncentral t distribution for two rows, otherwise by simulation."""
        if rows == 2:
            df = num_seeds - 1
            return stats.nct.sf(stats.t.ppf(1 - 0.025 / comparisons, df), df, ratio * np.sqrt(num_seeds / 2))
        y = simulations.simulated(rows, num_seeds, 4000)
        y[:, 1] += ratio
        return np.mean(simulations.p_values(y, "moderated")[:, 0] <= 0.05 / comparisons)

    needed = seeds_needed(ratio * 0.002, 0.002, num_rows=rows, num_comparisons=comparisons)
    slack = 1e-9 if rows == 2 else 0.02
    assert power(needed) >= 0.8 - slack
    assert needed == 2 or power(needed - 1) < 0.8 + slack


def test_the_textbooks_sample_size():
    """Cohen's d = 0.5 of paired differences at 80 % power needs 34 pairs (and d = 1 needs 10)."""
    assert [seeds_needed(d * np.sqrt(2) * 0.002, 0.002) for d in (0.5, 1.0)] == [34, 10]
    assert power_of(0.5, 1 / np.sqrt(34), student(33)) == pytest.approx(0.8078, abs=2e-4)
