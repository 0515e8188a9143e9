"""How the runs of a study scatter over seeds: each row's own variance, and the variance pooled over the rows.

The model: row r with seed s ends at y[r, s] = row[r] + seed[s] + noise[r, s], independent and normal, where seed[s] is
the effect of a seed on every row alike (the same order of images, the same crops). Two kinds of mean squares: noise,
around the least-squares fit of one parameter per row and one per seed; and total, around the row's mean.

The difference of two rows' means over all their seeds has the variance Σ (q noise + (1/n − q) total) over the two rows,
with q = k / (n1 n2) for n1 and n2 runs with k common seeds: noise alone with the same seeds, total with no common one.

A row's own variance is hardly known from three seeds, but that pooled over the rows is wrong for a row, or a baseline,
that scatters more. So it is (t own + pooled) / (t + 1), where t are its own degrees of freedom: the pooled variance
counts as one more. The weight is chosen by simulation (benchmarks/simulations.py).

Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression in microarray
    experiments", section 4 (the moderated variance), https://doi.org/10.2202/1544-6115.1027
Differs: the weight is fixed, and the degrees of freedom are Satterthwaite's with each row's own variance.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isfinite

import numpy as np

from pocketvit.errors import InputError

Accuracies = Mapping[str, Mapping[int, float]]  # row, seed, fraction of images classified correctly

NO_DF = 1e-9  # degrees of freedom below this are rounding


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The scatter of runs over seeds, pooled over the rows of a study. A variance without degrees of freedom is None."""

    noise: float | None  # variance of a run without the effect of the seed on all rows
    noise_df: int
    total: float | None  # variance of a run of one row over seeds
    total_df: float
    """By Satterthwaite: rows repeat the effect of their seeds, the share 1 − noise / total of the variance."""


class Layout:
    """The runs of a study's rows, but for those set `apart`, and their mean squares by kind (noise, total) and row."""

    def __init__(self, accuracies: Accuracies, apart: Collection[str] = (), least: float = 0.0) -> None:
        runs = tuple((row, seed) for row, values in accuracies.items() for seed in values if row not in apart)
        y = np.array([accuracies[row][seed] for row, seed in runs])  # (N,)
        for (row, seed), value in zip(runs, y, strict=True):
            if not isfinite(value):
                raise InputError(f"accuracy of row {row!r} with seed {seed} is {value}; leave failed runs out")
        self.rows = {row: index for index, row in enumerate(dict.fromkeys(row for row, _ in runs))}
        self.least = least
        self.of_row, self.of_seed, self.residuals = _design(runs)
        self.df = np.array([np.diag(m) @ self.of_row for m in self.residuals])  # (2, R)
        self.df[self.df < NO_DF] = 0.0
        self.dfs = self.df.sum(1)  # (2,)
        self.shares = 1 / np.where(self.dfs, self.dfs, np.inf)  # (2,)
        squares = np.array([(m @ y) ** 2 @ self.of_row for m in self.residuals])  # (2, R)
        self.pooled = squares.sum(1) * self.shares  # (2,); 0 where unknown
        self.own = np.where(self.df, squares / np.where(self.df, self.df, 1.0), self.pooled[:, None])  # (2, R)

    def error(self, row: str, reference: str, num_shared: int) -> tuple[float, float]:
        """Variance of the difference of two rows' means, and its degrees of freedom; (0, 0) if the noise is unknown."""
        two = [self.rows[row], self.rows[reference]]
        shared = num_shared / self.of_row.sum(0)[two].prod() if self.dfs[0] else 0.0
        part = np.array([[shared, shared], 1 / self.of_row.sum(0)[two] - shared])  # (2, 2)
        extra = 1 / (self.df[:, two] + 1)
        variance = np.maximum((1 - extra) * self.own[:, two] + extra * self.pooled[:, None], self.least)
        if not (self.dfs[1] and variance.any()):
            return 0.0, 0.0
        weights = np.zeros_like(self.own)  # of the sums of squares: the row's own, and all in the pooled part
        weights[:, two] = part * extra
        weights = (weights + ((part * extra).sum(1) * self.shares)[:, None]).ravel()
        mean, squared = self._moments
        return float(np.sum(part * variance)), float((weights @ mean) ** 2 / (weights @ squared @ weights))

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (2R,) and half the covariance (2R, 2R) of the sums of squares, with each row's own variance."""
        noise, total = np.maximum(self.own, self.least) @ self.of_row.T  # (N,)
        seeds = self.of_seed @ self.of_seed.T
        if self.dfs[0]:
            covariance = np.diag(noise) + max(0.0, self.pooled[1] - self.pooled[0]) * seeds
        else:
            covariance = np.sqrt(np.outer(total, total)) * seeds
        both, of_row = np.vstack(self.residuals), np.kron(np.eye(2), self.of_row)  # (2N, N) and (2N, 2R)
        residuals = both @ covariance @ both.T
        return np.diag(residuals) @ of_row, of_row.T @ residuals**2 @ of_row


def pooled_spread(accuracies: Accuracies, apart: Collection[str] = ()) -> Spread:
    """Both seed variances of a study, from all its rows but those set `apart` (see `findings.noisy_rows`)."""
    layout = Layout(accuracies, apart)
    noise, total = (float(v) if df else None for v, df in zip(layout.pooled, layout.dfs, strict=True))
    share = 1.0 if noise is None or not total else max(0.0, 1 - noise / total)
    squared = float(np.sum((layout.of_seed.T @ layout.residuals[1] @ layout.of_seed) ** 2))
    df = float(layout.dfs[1])
    total_df = df**2 / (df * (1 - share**2) + share**2 * squared) if df else 0.0
    return Spread(noise=noise, noise_df=round(layout.dfs[0]), total=total, total_df=total_df)


def balanced_errors(own: np.ndarray, num_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """`Layout.error` for many studies at once whose rows have the same seeds: of each row against the first.

    `own` is the noise variance of each row, (..., R); variances and degrees of freedom are (..., R − 1) each.
    """
    num_rows = own.shape[-1]
    centring = np.eye(num_rows) - 1 / num_rows
    df = (num_seeds - 1) * (1 - 1 / num_rows)  # of a row
    weights = np.eye(num_rows)[1:] + np.eye(num_rows)[0] + 2 / (num_rows * df)  # (R − 1, R)
    residuals = (centring * own[..., None, :]) @ centring  # (..., R, R)
    mean = np.diagonal(residuals, axis1=-2, axis2=-1) @ weights.T
    squared = np.sum((weights @ residuals**2) * weights, axis=-1)
    return own @ weights.T * df / ((df + 1) * num_seeds), (num_seeds - 1) * mean**2 / squared


@lru_cache(maxsize=8)
def _design(runs: tuple[tuple[str, int], ...]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Which row (N, R) and which seed (N, S) each run has, and the projections on noise and on total, (N, N) each."""
    labels = [[run[part] for run in runs] for part in (0, 1)]
    of_row, of_seed = ((np.array(x)[:, None] == np.array(list(dict.fromkeys(x)))).astype(float) for x in labels)
    residuals = []
    for design in (np.hstack([of_row, of_seed]), of_row):
        left, singular, _ = np.linalg.svd(design, full_matrices=False)
        used = left[:, singular > 1e-9 * singular.max(initial=1.0)]
        residuals.append(np.eye(len(runs)) - used @ used.T)
    return of_row, of_seed, residuals
