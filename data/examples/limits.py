"""Only so many examples of each label, chosen in an order unrelated to that of their source."""

from collections.abc import Iterable, Sequence

import numpy as np

from data.sources.splits import hash_of


def chosen(names: Sequence[str], labels: np.ndarray, limit: int) -> np.ndarray:
    """Which examples stay.

    The order is that of a hash of the names: those who would come in later change no choice among
    the others.

    Args:
      names: of the examples.
      labels: int64 [n], of each; all alike where a task has none.
      limit: of a label, at most.

    Returns:
      bool [n].
    """
    order = np.argsort(_places(names), kind="stable")
    stays = np.zeros(labels.size, np.bool_)
    for label in np.unique(labels).tolist():
        stays[order[labels[order] == label][:limit]] = True
    return stays


def _places(names: Iterable[str]) -> np.ndarray:
    return np.array([hash_of(f"limit {name}") for name in names], np.uint64)
