"""Random numbers by address."""

import numpy as np
import pytest
from scipy import stats

from pocketvit.randomness import Stream, permutation, raw, torch_seed, uniform


def test_numbers_are_pinned():
    """They are part of every result: if this fails, no run can be replayed."""
    assert raw(1, Stream.IMAGE, 2, 4).tolist() == [3334600607, 4217397935, 3773792716, 173233707]
    assert uniform(1, Stream.IMAGE, 2, 2, 2).tolist() == [
        [x / 2**24 for x in r] for r in [[13025783, 16474210], [14741377, 676694]]
    ]
    assert permutation(7, Stream.ORDER, 0, 6).tolist() == [0, 3, 4, 5, 1, 2]


def test_a_row_does_not_depend_on_how_many_are_drawn():
    assert (uniform(3, 1, 5, 10, 7) == uniform(3, 1, 5, 1000, 7)[:10]).all()


@pytest.mark.parametrize("change", [(4, 1, 5), (3, 2, 5), (3, 1, 6)], ids=["seed", "stream", "pass"])
def test_every_part_of_the_address_counts(change):
    assert not (uniform(3, 1, 5, 100, 1) == uniform(*change, 100, 1)).any()


def test_uniform_numbers_are_uniform():
    numbers = uniform(0, Stream.IMAGE, 0, 100_000, 1)[:, 0]
    assert numbers.dtype == np.float32
    assert 0 <= numbers.min() and numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3


def test_neighbouring_passes_are_uncorrelated():
    a, b = uniform(0, Stream.IMAGE, 0, 50_000, 1)[:, 0], uniform(0, Stream.IMAGE, 1, 50_000, 1)[:, 0]
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def test_permutation_holds_every_index_once():
    assert sorted(permutation(5, Stream.ORDER, 3, 1000)) == list(range(1000))


def test_torch_seeds_differ_and_fit():
    seeds = {torch_seed(seed, Stream.INIT) for seed in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
