"""Intervals of 95 % around what was measured on some examples."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data.permute import derive_key

RESAMPLES = 1000
_SEED = derive_key(0x6A756467)  # any constant; the same numbers give the same interval anywhere
_Z = 1.959963984540054  # of the normal distribution 95 % lie so many deviations around the mean


class Estimate(NamedTuple):
    """Attributes:
    value: what was measured, from 0 to 100.
    low, high: of the interval.
    """

    value: float
    low: float
    high: float


def of_share(hits: float, examples: int) -> Estimate:
    """Of hits among examples: Wilson's score interval (Wilson 1927).

    Args:
      hits: their number; of a tie a part of one.
      examples: at least 1.
    """
    share, z2 = hits / examples, _Z * _Z / examples
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(share * (1 - share) / examples + z2 / examples / 4) / (1 + z2)
    # Rounding must not take 0 or 1 out of its own interval.
    low, high = min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)
    return Estimate(100 * share, 100 * low, 100 * high)


def of_sums(statistics: np.ndarray, value: Callable[[np.ndarray], float]) -> Estimate:
    """Of what follows from sums over examples: the bootstrap's percentiles (Efron 1979).

    Args:
      statistics: [examples, statistics].
      value: the measure, from 0 to 100, of their sums [statistics].
    """
    examples = len(statistics)
    found = np.array(
        [value(statistics[_drawn(index, examples)].sum(axis=0)) for index in range(RESAMPLES)]
    )
    low, high = np.quantile(found, (0.025, 0.975))
    return Estimate(value(statistics.sum(axis=0)), float(low), float(high))


def of_groups(statistics: np.ndarray) -> Estimate:
    """Of a share where examples come in groups, which are drawn as a whole: `of_sums` over groups.
    Where all groups agree that has no width, and it is `of_share` of as many examples.

    Args:
      statistics: [groups, 2], of each its hits and its examples.
    """
    found = of_sums(statistics, lambda sums: float(100 * sums[0] / sums[1]))
    if found.low == found.high:
        return of_share(len(statistics) * found.value / 100, len(statistics))
    return found


def of_mean(values: np.ndarray) -> Estimate:
    """Of a mean of values [examples] from 0 to 1, by `of_sums`."""
    examples = len(values)
    return of_sums(values.astype(np.float64)[:, None], lambda sums: 100 * float(sums[0]) / examples)


def _drawn(index: int, examples: int) -> np.ndarray:
    """The examples of a resample, drawn with replacement: int64 [examples]."""
    # SplitMix64 (Steele, Lea and Flood, 2014), a state apart for each draw.
    state = np.arange(1, examples + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = state + np.uint64(derive_key(_SEED, index))
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    # The upper half is scaled to the range; what that favours is below 2^-32 x examples.
    return ((x >> np.uint64(32)) * np.uint64(examples) >> np.uint64(32)).astype(np.int64)
