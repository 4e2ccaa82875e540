"""Only so many examples of a corpus, chosen in an order unrelated to that of their source."""

from collections.abc import Sequence

import numpy as np

from data.sources.splits import hash_of


def chosen(
    names: Sequence[str], labels: np.ndarray, limit: int, purpose: str = "limit"
) -> np.ndarray:
    """Which examples stay: as many of each label as of another, as far as there are so many.

    The order is that of a hash of the names: those who would come in later change no choice among
    the others. Labels take turns; which of them begins is a hash's choice too.

    Args:
      names: of the examples.
      labels: int64 [n], of each; all alike where a task has none.
      limit: of all, at most.
      purpose: those of another one are chosen without regard to these.

    Returns:
      bool [n].
    """
    places = np.array([hash_of(f"{purpose} {name}") for name in names], np.uint64)
    order = np.argsort(places, kind="stable")
    known, which = np.unique(labels, return_inverse=True)
    first = np.array([hash_of(f"label {label}") for label in known.tolist()], np.uint64)
    turns = np.zeros(labels.size, np.int64)
    for i in range(known.size):
        of_label = order[which[order] == i]
        turns[of_label] = np.arange(of_label.size)
    stays = np.zeros(labels.size, np.bool_)
    stays[np.lexsort((first[which], turns))[:limit]] = True
    return stays
