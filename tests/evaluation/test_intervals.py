"""Intervals beside published ones, and beside what they are meant to hold."""

import numpy as np
import pytest

from evaluation import intervals


@pytest.mark.parametrize(
    ("hits", "examples", "low", "high"),
    [
        # Newcombe 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval(hits, examples, low, high):
    found = intervals.of_share(hits, examples)
    assert found.value == pytest.approx(100 * hits / examples)
    assert (found.low, found.high) == (
        pytest.approx(100 * low, abs=6e-3),
        pytest.approx(100 * high, abs=6e-3),
    )
    assert found.low <= found.value <= found.high


def test_the_bootstrap_is_as_wide_as_the_normal_interval():
    values = np.linspace(0, 1, 400) ** 2
    found = intervals.of_mean(values)
    deviation = 100 * values.std() / 20
    assert found.value == pytest.approx(100 * values.mean())
    assert found.high - found.value == pytest.approx(1.96 * deviation, rel=0.1)
    assert found.value - found.low == pytest.approx(1.96 * deviation, rel=0.1)
    assert intervals.of_mean(values) == found  # its seed is its own


def test_examples_of_a_group_are_drawn_together():
    """Twenty groups of five that are all right or all wrong say as much as twenty examples."""
    hits = np.array([5, 0] * 10)
    found = intervals.of_groups(np.stack([hits, np.full(20, 5)], axis=1))
    deviation = 100 * 0.5 / np.sqrt(20)
    assert found.value == 50
    assert found.high - 50 == pytest.approx(1.96 * deviation, rel=0.15)
    agreed = intervals.of_groups(np.array([[3, 3], [1, 1], [2, 2]]))
    assert agreed == intervals.of_share(3, 3) and agreed.low < 50


def test_draws_are_even():
    drawn = np.concatenate([intervals._drawn(i, 10) for i in range(1000)])
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    assert ((counts - 1000) ** 2 / 1000).sum() < 21.7  # chi-squared of 9: one in a hundred is above
