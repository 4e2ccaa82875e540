"""Which corpus a row is of: weights kept exactly, by a function of the row's number.

Rows are dealt so that after every row each corpus has had its exact share, to within one row:
Tijdeman, "The chairman assignment problem" (1980). Weights are rational numbers, so the
assignment repeats after their common denominator, and one period of it is a table.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

LONGEST = 100_000  # rows of a period


class Mixture:
    """The rows of a stage, dealt to its corpora.

    Args:
      weights: of each corpus, not negative; their sum is not 0. 0.3 is three tenths.

    Attributes:
      shares: the weights as whole numbers without a common factor.
      period: their sum; rows repeat after it.

    Raises:
      ValueError: the weights cannot be kept exactly.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        if any(not math.isfinite(w) or w < 0 for w in weights) or not any(weights):
            raise ValueError(f"weights {list(weights)}: use numbers from 0 on, and one above it")
        exact = [Fraction(repr(weight)) for weight in weights]
        unit = math.lcm(*(share.denominator for share in exact))
        whole = [int(share * unit) for share in exact]
        common = math.gcd(*whole)
        self.shares = tuple(share // common for share in whole)
        self.period = sum(self.shares)
        if self.period > LONGEST:
            raise ValueError(
                f"weights {list(weights)} repeat after {self.period:,} rows only: round them, so "
                f"that they are parts of {LONGEST:,} or fewer"
            )
        self._corpus = _assign(self.shares)
        hits = self._corpus[None, :] == np.arange(len(weights))[:, None]
        self._before = np.zeros((len(weights), self.period + 1), np.int64)
        np.cumsum(hits, axis=1, out=self._before[:, 1:])
        self._places = [np.flatnonzero(hit) for hit in hits]

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The corpus of each row, and how many rows of that corpus are before it: int64."""
        periods, within = np.divmod(rows, self.period)
        corpus = self._corpus[within]
        shares = np.array(self.shares, np.int64)
        return corpus, periods * shares[corpus] + self._before[corpus, within]

    def count(self, corpus: int, rows: int) -> int:
        """How many of the first `rows` rows are of a corpus."""
        periods, within = divmod(rows, self.period)
        return periods * self.shares[corpus] + int(self._before[corpus, within])

    def row(self, corpus: int, ordinal: int) -> int:
        """The row that is the corpus's row number `ordinal`."""
        periods, within = divmod(ordinal, self.shares[corpus])
        return periods * self.period + int(self._places[corpus][within])


@functools.lru_cache(maxsize=64)
def _assign(shares: tuple[int, ...]) -> np.ndarray:
    """One period of the assignment: int64 [sum(shares)].

    At row k a corpus may come whose debt (share x k - rows so far) is 1 / (2n - 2) or more; of
    these comes the one whose debt would first exceed 1 - 1 / (2n - 2) if it did not. All debts then
    stay within that bound.
    """
    takers = [index for index, share in enumerate(shares) if share]
    period, n = sum(shares), 2 * len(takers) - 2
    if n == 0:
        return np.full(period, takers[0], np.int64)
    had = dict.fromkeys(takers, 0)
    assigned = np.empty(period, np.int64)
    for k in range(period):
        best, best_slack = -1, 0
        for index in takers:
            share = shares[index]
            debt = share * (k + 1) - had[index] * period  # x 1 / period
            if n * debt < period:
                continue
            slack = (n - 1) * period - n * debt  # over n x share: rows until it is late
            if best < 0 or slack * shares[best] < best_slack * share:
                best, best_slack = index, slack
        assigned[k] = best
        had[best] += 1
    return assigned
