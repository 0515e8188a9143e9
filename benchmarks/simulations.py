"""How often a study's statistics are right, by simulation; writes results/simulations/*.json in three to seven minutes.

    python -m benchmarks.simulations [PART ...]

Every part simulates studies in which the truth is known: `errors` (false alarms where a row or the baseline scatters
more than the rest), `power` (the difference that is detected), `agreement` (the prediction intervals of docs/paper.md),
`seeds` (which runs a difference uses), `claims` (the rules for the paper's claims). One
unit is the standard deviation of a run over seeds, unless stated otherwise.
"""

import argparse
import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
from scipy import special

from pocketvit.files import write_atomically
from pocketvit.studies import compare, pooled_spread
from pocketvit.studies.analysis.findings import LEAST_DF, NOISY_LEVEL
from pocketvit.studies.analysis.power import LEVEL, POWER, detectable_difference, detectable_with, student
from pocketvit.studies.analysis.spread import balanced_errors
from pocketvit.studies.definition.choose import find_study
from reproduction.rules import LEVEL as CLAIM_LEVEL

OUT = Path(__file__).parents[1] / "results" / "simulations"
SHAPES = ((11, 3), (3, 3), (4, 3), (6, 3), (18, 3), (11, 5), (11, 2))
"""Rows, the baseline among them, and seeds."""
STUDIES = 20_000
TABLE2_SHARE = 0.09
"""The share of seeds in the variance of a run that the paper's Table 2 shows, rounded."""
METHODS = ("pooled", "moderated")
"""One variance for all rows, as before, and the method of `stats.compare`."""


def simulated(rows: int, seeds: int, studies: int, stds: dict[int, float] | None = None, key: int = 0) -> np.ndarray:
    """Accuracies (studies, rows, seeds) of rows that are all alike but for the standard deviations given by row."""
    scale = np.ones((rows, 1))
    for row, std in (stds or {}).items():
        scale[row] = std
    return np.random.default_rng([rows, seeds, key]).normal(size=(studies, rows, seeds)) * scale


def noisy(y: np.ndarray) -> np.ndarray:
    """`findings.noisy_rows` for many studies, (studies, rows)."""
    studies, rows, seeds = y.shape
    within = y.var(2, ddof=1)
    order = np.argsort(within, 1)
    ordered = np.take_along_axis(within, order, 1)
    first = np.full(studies, rows)
    for calm in range(rows - 1, 0, -1):
        if calm < rows - 1 and (2 * calm < rows or calm * (seeds - 1) < LEAST_DF):
            break
        usual = ordered[:, :calm].mean(1)
        p = special.fdtrc(seeds - 1, calm * (seeds - 1), ordered[:, calm] / usual)
        first = np.where(p < NOISY_LEVEL / rows, calm, first)
    return np.argsort(order, 1) >= first[:, None]


def errors_of(y: np.ndarray, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of each row to the first, its standard error and degrees of freedom, (studies, rows − 1) each."""
    _, all_rows, seeds = y.shape
    difference = y[:, 1:].mean(2) - y[:, :1].mean(2)
    variance = (y[:, 1:] - y[:, :1]).var(2, ddof=1) / seeds  # of the two rows alone, where one is set apart
    df = np.full_like(variance, seeds - 1)
    apart = noisy(y)
    for mask in np.unique(apart[~apart[:, 0] & (apart.sum(1) < all_rows - 1)], axis=0):
        chosen, rows = np.flatnonzero((apart == mask).all(1)), np.flatnonzero(~mask)
        kept = y[chosen][:, rows]
        residuals = kept - kept.mean(2, keepdims=True) - kept.mean(1, keepdims=True) + kept.mean((1, 2), keepdims=True)
        own = np.sum(residuals**2, 2) / ((seeds - 1) * (1 - 1 / len(rows)))
        if method == "pooled":
            found = [np.broadcast_to(value[:, None], (len(chosen), len(rows) - 1)) for value in (
                own.mean(1) * 2 / seeds, np.full(len(chosen), (len(rows) - 1) * (seeds - 1.0)))]  # fmt: skip
        else:
            found = balanced_errors(own, seeds)
        variance[np.ix_(chosen, rows[1:] - 1)], df[np.ix_(chosen, rows[1:] - 1)] = found
    return difference, np.sqrt(variance), df


def p_values(y: np.ndarray, method: str) -> np.ndarray:
    """Of each row against the first, not corrected, (studies, rows − 1)."""
    difference, stderr, df = errors_of(y, method)
    return 2 * special.stdtr(df, -np.abs(difference) / stderr)


def errors() -> dict:
    """The share of studies without any effect in which Holm's method calls a difference real, and interval coverage."""
    found = []
    for rows, seeds in SHAPES:
        for who, factor in [("none", 1), *((who, factor) for who in ("baseline", "row") for factor in (2, 3, 4))]:
            y = simulated(rows, seeds, STUDIES, {0 if who == "baseline" else 1: factor})
            record = {"rows": rows, "seeds": seeds, "noisy": who, "factor": factor}
            for method in METHODS:
                p = p_values(y, method)
                record[method] = float(np.mean(p.min(1) <= LEVEL / (rows - 1)))
                record[f"coverage_{method}"] = float(np.mean(p[:, 0] > LEVEL))
            found.append(record)
    return {"studies": STUDIES, "rows": found}


def power() -> dict:
    """The difference that is detected with 80 % power at the first step of Holm's method, rows alike."""
    found = []
    for rows, seeds in [(11, 2), (11, 3), (11, 4), (11, 5), (11, 8), (3, 3), (6, 3), (18, 3), (18, 5)]:
        pooled = detectable_difference(sqrt(2 / seeds), student((rows - 1) * (seeds - 1), LEVEL / (rows - 1)))
        moderated = detectable_with(seeds, 1.0, num_rows=rows, num_comparisons=rows - 1)
        y = simulated(rows, seeds, STUDIES, key=1)
        y[:, 1] += moderated
        detected = float(np.mean(p_values(y, "moderated")[:, 0] <= LEVEL / (rows - 1)))
        found.append({"rows": rows, "seeds": seeds, "pooled": pooled, "moderated": moderated, "detected": detected})
    return {"studies": STUDIES, "power": POWER, "rows": found}


def agreement() -> dict:
    """How often a 95 % prediction interval holds one more run, by the share of the variance that seeds have."""
    found, studies = [], 4000
    table2 = [len(row.seeds) for row in find_study("paper-table2").rows]
    for seeds, shape in ((table2, "table 2"), ([5] * 5, "table 3"), ([3, 3], "two rows")):
        for share in (0.0, TABLE2_SHARE, 0.2, 0.5, 0.9):
            for factor in (1.0, 2.0) if share == TABLE2_SHARE else (1.0,):
                rng = np.random.default_rng([len(seeds), int(100 * share), int(factor)])
                before = after = 0
                widths = []
                for _ in range(studies):
                    of_seed = rng.normal(0, sqrt(share), max(seeds))
                    runs = {
                        f"r{row}": {s: of_seed[s] + rng.normal(0, sqrt(1 - share) * (factor if row == 1 else 1))
                                    for s in range(n)}
                        for row, n in enumerate(seeds)
                    }  # fmt: skip
                    spread, worst = pooled_spread(runs), worst_case_df(seeds)
                    values = list(runs["r1"].values())
                    one_more = rng.normal(0, sqrt(share)) + rng.normal(0, sqrt(1 - share) * factor)
                    scale = sqrt(spread.total * (1 + 1 / len(values)))
                    half = [special.stdtrit(df, 1 - LEVEL / 2) * scale for df in (worst, spread.total_df)]
                    away = abs(one_more - np.mean(values))
                    before, after = before + (away <= half[0]), after + (away <= half[1])
                    widths.append(half)
                old, new = np.median(widths, axis=0)
                found.append({"layout": shape, "share": share, "factor": factor, "worst_case": before / studies,
                              "components": after / studies, "half_worst_case": old, "half_components": new})  # fmt: skip
    return {"studies": studies, "rows": found}


def worst_case_df(seeds: list[int]) -> float:
    """Degrees of freedom of the total variance if seeds were all of it; row r has the first seeds[r]."""
    has = np.arange(max(seeds)) < np.array(seeds)[:, None]  # (rows, seeds)
    centring = np.diag(has.sum(0)) - has.T @ (has / np.array(seeds)[:, None])
    return float((sum(seeds) - len(seeds)) ** 2 / np.sum(centring**2))


def seeds() -> dict:
    """Differences over the common seeds, over all seeds, and by generalized least squares: rows of 3, a baseline of 5."""
    found, studies, rows = [], 1500, 11
    for ratio in (0.0, 0.25, 1.0, 4.0):
        rng = np.random.default_rng(int(100 * ratio))
        sums = {name: np.zeros(4) for name in ("common", "all", "least_squares")}
        for _ in range(studies):
            y = rng.normal(size=(rows, 5)) + rng.normal(0, sqrt(ratio), 5)
            y[1] += 2.5
            table = {f"r{i}": dict(enumerate(row[: 3 if i else 5])) for i, row in enumerate(y)}
            for name, runs in (("common", table | {"r0": dict(enumerate(y[0, :3]))}), ("all", table)):
                compared = compare(runs, {f"r{i}": "r0" for i in range(1, rows)})
                p = [c.p_holm for c in compared.values()]
                miss = compared["r1"].difference - 2.5
                sums[name] += [miss, miss**2, p[0] <= LEVEL, min(p[1:]) <= LEVEL]
            miss = least_squares(y, pooled_spread(table)) - 2.5
            sums["least_squares"] += [miss, miss**2, np.nan, np.nan]
        for name, total in sums.items():
            bias, square, detected, alarms = total / studies
            found.append({"seed_variance_over_noise": ratio, "rule": name, "bias": bias, "rms_error": sqrt(square),
                          **({} if np.isnan(detected) else {"power": detected, "false_alarms": alarms})})  # fmt: skip
    return {"studies": studies, "difference": 2.5, "rows": found}


def least_squares(y: np.ndarray, spread) -> float:
    """Row 1 minus row 0 by generalized least squares with the estimated variances; rows of 3 seeds, row 0 of 5."""
    runs = [(row, seed) for row in range(len(y)) for seed in range(3 if row else 5)]
    of_row, of_seed = (np.eye(size)[[run[part] for run in runs]] for part, size in ((0, len(y)), (1, 5)))
    ratio = max(0.0, spread.total / spread.noise - 1)
    weight = np.linalg.inv(np.eye(len(runs)) + ratio * of_seed @ of_seed.T)
    mean = np.linalg.solve(of_row.T @ weight @ of_row, of_row.T @ weight @ np.array([y[run] for run in runs]))
    return float(mean[1] - mean[0])


def claims() -> dict:
    """Verdicts on a claim of an effect by the rules of reproduction/, by the true effect's share of the claimed size.

    Eleven rows; the claimed size is 0.88 points, and runs scatter by 0.25.
    """
    found, size, studies, rows = [], 0.88 / 0.25, 5000, 11
    for num_seeds in (3, 6, 12, 24):
        for share in (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 2.5):
            y = simulated(rows, num_seeds, studies, key=2)
            y[:, 1] += share * size
            for rule in ("direction", "size", "old"):
                d, stderr, df = (value[:, 0] for value in errors_of(y, "pooled" if rule == "old" else "moderated"))
                half = special.stdtrit(df, 1 - LEVEL / 2) * stderr
                level = LEVEL if rule == "old" else CLAIM_LEVEL
                there = 2 * special.stdtr(df, -np.abs(d) / stderr) * (rows - 1) <= level
                holds, fails = {
                    "direction": (there & (d > 0), there & (d < 0)),
                    "size": (
                        there & (d - half >= size / 2) & (d + half <= 2 * size),
                        (d + half < size / 2) | (d - half > 2 * size),
                    ),
                    "old": (there & (d >= size / 2), (d + half < size / 2) | (there & (d < 0))),
                }[rule]
                found.append({"seeds": num_seeds, "share": share, "rule": rule, "reproduced": float(holds.mean()),
                              "not_reproduced": float((fails & ~holds).mean())})  # fmt: skip
    return {"studies": studies, "rows": found}


PARTS: dict[str, Callable[[], dict]] = {
    "errors": errors, "power": power, "agreement": agreement, "seeds": seeds, "claims": claims,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    for name in parser.parse_args().parts or PARTS:
        found = json.dumps({"command": "python -m benchmarks.simulations"} | PARTS[name]())
        text = json.dumps(json.loads(found, parse_float=lambda figure: round(float(figure), 6)), indent=1) + "\n"
        OUT.mkdir(parents=True, exist_ok=True)
        write_atomically(OUT / f"{name}.json", text.encode())


if __name__ == "__main__":
    main()
