"""Corpora mixed by how many examples they have: Raffel et al. 2020, 3.5.2.

Rates are of examples. Rows are what a mixture deals, so those of a corpus follow from how many of
its examples a row holds. Plain text beside tasks, which is there against forgetting, has no
examples that could be counted beside theirs: it has a weight, beside 1 for all tasks together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

PARTS = 10_000
"""Shares of rows are so many whole parts of all: a mixture keeps them exactly."""


@dataclass(frozen=True)
class RatesConfig:
    """Weights of a mixture's corpora by counts, in the place of weights that are given.

    Attributes:
      temperature: a corpus of n examples has the rate min(n, cap)^(1 / temperature): 1 is in
        proportion to the counts, larger ones are nearer to equal rates; 0 leaves the weights as
        they are given.
      cap: 0 is none.
    """

    temperature: float = 0.0
    cap: int = 0

    def __post_init__(self) -> None:
        if self.temperature and self.temperature < 1:
            raise ValueError(
                f"temperature={self.temperature}: use 1 or more, or 0 for given weights"
            )
        if self.cap < 0:
            raise ValueError(f"cap={self.cap}: must not be negative")
        if self.cap and not self.temperature:
            raise ValueError(f"cap={self.cap}: give a temperature too, such as 1")


class Counts(NamedTuple):
    """Of a corpus: its examples, and the rows that these take."""

    examples: int
    rows: int


def weights(corpora: Sequence[Counts | float], config: RatesConfig) -> list[int]:
    """The weights of corpora in rows: whole numbers whose sum is PARTS, at least 1 each but where
    none is wanted.

    Args:
      corpora: counts, of one at least; or a weight beside 1 for all of which counts are given.
      config: with a temperature.
    """
    rates = [_rate(one, config) if isinstance(one, Counts) else 0.0 for one in corpora]
    of_rates = sum(rates)
    shares = [
        rate / of_rates if isinstance(one, Counts) else one
        for one, rate in zip(corpora, rates, strict=True)
    ]
    exact = [PARTS * share / sum(shares) for share in shares]
    parts = [max(int(share), 1) if share else 0 for share in exact]
    # The rest goes to those that rounding took most from; where the least shares were raised, it
    # comes from the largest.
    order = sorted((i for i in range(len(parts)) if parts[i]), key=lambda i: parts[i] - exact[i])
    for i in order[: max(PARTS - sum(parts), 0)]:
        parts[i] += 1
    parts[parts.index(max(parts))] -= sum(parts) - PARTS
    return parts


def _rate(counts: Counts, config: RatesConfig) -> float:
    """Of the rows of a corpus."""
    n, rows = counts
    rate: float = min(n, config.cap or n) ** (1 / config.temperature)
    return rate * rows / n
