"""Every corpus has its exact share after every row."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.mixture import Mixture

WEIGHTS = st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any)


@given(weights=WEIGHTS)
def test_counts_are_within_one_row_of_exact_after_every_row(weights: list[int]) -> None:
    mixture = Mixture(weights)
    n = 2 * mixture.period + 3
    corpus, ordinal = mixture.locate(np.arange(n))
    had = [0] * len(weights)
    for row in range(n):
        at = int(corpus[row])
        assert ordinal[row] == had[at]
        assert mixture.row(at, had[at]) == row
        had[at] += 1
        for index, weight in enumerate(weights):
            exact = Fraction(weight * (row + 1), sum(weights))
            assert abs(had[index] - exact) < 1
            assert mixture.count(index, row + 1) == had[index]


def test_decimal_weights_are_what_they_say() -> None:
    assert Mixture([0.3, 0.5, 0.2]).shares == (3, 5, 2)
    assert Mixture([1, 1e-3]).shares == (1000, 1)
    assert Mixture([7.0]).shares == (1,)
    assert Mixture([0.1, 0, 0.1]).shares == (1, 0, 1)


def test_rows_far_away_are_found_at_once() -> None:
    mixture = Mixture([0.7, 0.2, 0.1])
    corpus, ordinal = mixture.locate(np.array([10**15]))
    assert (corpus[0], ordinal[0]) == (0, 7 * 10**14)
    assert mixture.row(2, 10**14) // 10 == 10**14


def test_the_assignment_never_changes() -> None:
    corpus, _ = Mixture([5, 3, 2]).locate(np.arange(10))
    assert corpus.tolist() == [0, 1, 0, 2, 0, 1, 0, 2, 1, 0]


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ([], "one above it"),
        ([0, 0], "one above it"),
        ([-1, 2], "from 0 on"),
        ([float("nan")], "from 0 on"),
        ([1 / 3, 1 / 2], "round them"),
        ([1, 123_456], "round them"),
    ],
)
def test_weights_that_cannot_be(weights: list[float], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        Mixture(weights)
    assert "\n" not in str(refused.value)
