"""Two ways to lay documents into bins.

Documents go through a fixed permutation first, so that neighbours are unrelated whatever order
their source has.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from data import permute


class Packed(NamedTuple):
    """Pieces in ascending order of where they lie: int64 [P] each.

    Attributes:
      at: the first position; bin b has the positions [b * L, (b + 1) * L).
      document: of which document.
      skipped: how many of its positions are before the piece.
      length: positions of the piece.
      n_bins: how many bins there are.
    """

    at: np.ndarray
    document: np.ndarray
    skipped: np.ndarray
    length: np.ndarray
    n_bins: int


def concatenate(lengths: np.ndarray, bin_length: int) -> Packed:
    """One document after the other, cut wherever a bin ends: only the last bin has padding.

    A document that is cut goes on in the next bin, without what came before the cut.

    Args:
      lengths: int64 [n], positions of each document, at least 1.
      bin_length: L.
    """
    document = permute.permute(np.arange(lengths.size), lengths.size, permute.DOCUMENTS)
    length = lengths[document]
    end = np.cumsum(length)
    n_bins = -(-int(end[-1]) // bin_length)
    return Packed(end - length, document, np.zeros_like(document), length, n_bins)


def best_fit(lengths: np.ndarray, bin_length: int) -> Packed:
    """No document is cut that fits into a bin: best-fit decreasing.

    Longer ones are cut into pieces of L and a rest. Each rest, the longest first, goes into the
    fullest bin that has room for it (Ding et al., "Fewer Truncations Improve Language Modeling",
    2024). Rests of one length are alike, and so are bins with equal room: they are placed together,
    in O(L) steps over arrays, and each of these bins gets one before one of them gets two.

    Args:
      lengths, bin_length: as of `concatenate`.
    """
    document = permute.permute(np.arange(lengths.size), lengths.size, permute.DOCUMENTS)
    length = lengths[document]
    full, rest = np.divmod(length, bin_length)
    whole_document = np.repeat(document, full)
    nth = np.arange(whole_document.size) - np.repeat(np.cumsum(full) - full, full)
    n_whole = whole_document.size

    has_rest = rest > 0
    document, rest, skipped = document[has_rest], rest[has_rest], (full * bin_length)[has_rest]
    order = np.argsort(-rest, kind="stable")
    document, rest, skipped = document[order], rest[order], skipped[order]
    bins, room, n_bins = _place(rest, bin_length)

    at = np.concatenate(
        [
            np.arange(n_whole) * bin_length,
            (bins + n_whole) * bin_length + bin_length - room,
        ]
    )
    ascending = np.argsort(at, kind="stable")
    return Packed(
        at[ascending],
        np.concatenate([whole_document, document])[ascending],
        np.concatenate([nth * bin_length, skipped])[ascending],
        np.concatenate([np.full(n_whole, bin_length), rest])[ascending],
        n_whole + n_bins,
    )


def _place(rest: np.ndarray, bin_length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The bin of each rest, the room that it finds there, and how many bins there are.

    Args:
      rest: int64 [n], descending, each less than bin_length.
    """
    bins, room = np.empty_like(rest), np.empty_like(rest)
    open_bins: list[list[np.ndarray]] = [[] for _ in range(bin_length + 1)]  # by their room
    some = np.zeros(bin_length + 1, np.bool_)
    n_bins = 0
    sizes, counts = np.unique(-rest, return_counts=True)
    done = 0
    for size, count in zip((-sizes).tolist(), counts.tolist(), strict=True):
        end = done + count
        while done < end:
            fit = size + int(np.argmax(some[size:]))
            if not some[fit]:  # as few new bins as hold what is left of this size
                new = -(-(end - done) // (bin_length // size))
                fit = bin_length
                open_bins[fit] = [np.arange(n_bins, n_bins + new)]
                n_bins += new
            group = open_bins[fit].pop()
            taken, left = np.split(group, [end - done])
            if left.size:
                open_bins[fit].append(left)
            some[fit] = bool(open_bins[fit])
            bins[done : done + taken.size] = taken
            room[done : done + taken.size] = fit
            done += taken.size
            if fit > size:
                open_bins[fit - size].append(taken)
                some[fit - size] = True
    return bins, room, n_bins


def in_units(lengths: np.ndarray, bin_length: int, unit: int) -> Packed:
    """Best-fit decreasing of documents that belong together: each unit lies whole in one bin, its
    documents next to each other in their order.

    Args:
      lengths: int64 [n], positions of each document; those of a unit are not longer than a bin
        together.
      bin_length: L.
      unit: consecutive documents of each unit; it divides n.
    """
    parts = lengths.reshape(-1, unit)
    packed = best_fit(parts.sum(axis=1), bin_length)
    length = parts[packed.document]
    at = packed.at[:, None] + np.cumsum(length, axis=1) - length
    document = packed.document[:, None] * unit + np.arange(unit)
    at, document, length = (array.reshape(-1) for array in (at, document, length))
    return Packed(at, document, np.zeros_like(at), length, packed.n_bins)


PACKERS: Mapping[str, Callable[[np.ndarray, int], Packed]] = {
    "concatenate": concatenate,
    "best_fit": best_fit,
}
