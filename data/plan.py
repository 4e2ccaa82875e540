"""How the documents of a store lie in bins of one length: made once, kept on disk, read at random.

What is packed is positions: a document of m tokens (BOS ... EOS) has m - 1 of them, each with a
token as its input and the next one as its target. So every token but BOS is a target once, and no
position asks for the BOS of the next document. The positions of bin b are [b * L, (b + 1) * L), L
being the bin's length; a piece of a document lies in one stretch of them:

    at.npy      int64 [P], ascending: the first position of each piece
    start.npy   int64 [P]: the token in the store that is the input there
    length.npy  int64 [P]: positions of the piece
    plan.json   counts, and how it was made
    files.json  size and SHA-256 of every file above

What no piece covers is padding.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data import cache, checksums, packers
from data.config import Packing
from data.documents import Progress
from data.store import TokenStore

VERSION = 2  # part of every stream's identity: raise it when any row changes
LAYOUT = 2  # part of a plan's address alone: raise it when its files change and its rows do not


class Pieces(NamedTuple):
    """Pieces of documents in rows: int64 [n] each.

    Attributes:
      row: which of the rows that were asked for.
      column: where it begins there.
      start: the token in the store that is the first input.
      length: positions.
    """

    row: np.ndarray
    column: np.ndarray
    start: np.ndarray
    length: np.ndarray


class Plan:
    """A plan, opened. Threads may read it together.

    Attributes:
      length: L, of a bin.
      n_bins: at least 1.
      padding: positions that no piece covers.
      identity: of how it was made; with the store's fingerprint it names every row.
    """

    def __init__(self, path: Path) -> None:
        """Opens the plan at `path`.

        Every file's size is checked, and the SHA-256 of files up to 256 MiB; `verify` checks all.

        Raises:
          UserError: a file is missing, truncated or damaged.
        """
        self.path = path
        self._files = checksums.read(path)
        checksums.check(path, self._files)
        try:
            about = json.loads((path / "plan.json").read_text())
            self.length: int = about["length"]
            self.n_bins: int = about["n_bins"]
            self.padding: int = about["padding"]
            self.identity: str = about["identity"]
            self._at, self._start, self._length = (
                np.asarray(np.load(path / f"{name}.npy", mmap_mode="r"))
                for name in ("at", "start", "length")
            )
            if not self._at.size == self._start.size == self._length.size == about["pieces"]:
                raise ValueError("of other sizes")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise checksums.damaged(path / "plan.json") from error

    @property
    def waste(self) -> float:
        """The share of all positions that is padding."""
        return self.padding / (self.n_bins * self.length)

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Checks the SHA-256 of every file.

        Args:
          progress: called before each file with the files done and in all.

        Raises:
          UserError: names the first file that is damaged.
        """
        checksums.check_all(self.path, self._files, progress)

    def pieces(self, positions: np.ndarray, width: int) -> Pieces:
        """What lies in rows of `width` positions that begin at `positions` (int64 [R])."""
        first = np.searchsorted(self._at, positions, side="right") - 1
        first = np.maximum(first, 0)
        counts = np.searchsorted(self._at, positions + width) - first
        row = np.repeat(np.arange(positions.size), counts)
        index = np.arange(row.size) + np.repeat(first - np.cumsum(counts) + counts, counts)
        at, begin = self._at[index], positions[row]
        low = np.maximum(at, begin)
        length = np.minimum(at + self._length[index], begin + width) - low
        start = self._start[index] + low - at
        column = low - begin
        if length.size and length.min() <= 0:  # the piece before a row that begins with padding
            kept = length > 0
            row, column, start, length = row[kept], column[kept], start[kept], length[kept]
        return Pieces(row, column, start, length)

    def of_document(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Where the document with tokens [first, last) lies: (first position, how many)."""
        for piece in np.flatnonzero((self._start >= first) & (self._start < last)).tolist():
            yield int(self._at[piece]), int(self._length[piece])


def make(
    store: TokenStore,
    length: int,
    packing: Packing,
    progress: Progress = lambda what, done, total: None,
    rebuild: bool = False,
) -> Plan:
    """Finds or makes the plan of a store.

    Args:
      length: L, of a bin.
      packing: the packer (data/packers.py); documents that belong together are always packed by
        best fit.
      progress: told that there is something to do.
      rebuild: make it anew, even where it is there.

    Raises:
      UserError: one that is there is damaged, or the cache cannot be written.
    """
    unit = store.unit
    units = {"unit": unit} if unit > 1 else {}
    identity = cache.key(packing=packing, length=length, version=VERSION, **units)
    name = cache.key(store=store.fingerprint, plan=identity, layout=LAYOUT)
    path = cache.root() / "plans" / name
    if rebuild:
        cache.remove(path)
    if not cache.has(path):
        progress("packing: million tokens", 0, store.n_tokens >> 20)
        positions = np.diff(store.token_offsets) - 1
        if unit > 1:
            made = packers.in_units(positions, length, unit)
        else:
            made = packers.PACKERS[packing](positions, length)
        start = store.token_offsets[made.document] + made.skipped
        used = int(made.length.sum())
        about = {
            "identity": identity,
            "packing": packing,
            "length": length,
            "pieces": int(made.at.size),
            "n_bins": made.n_bins,
            "padding": made.n_bins * length - used,
        }
        with cache.publish(path) as folder:
            for name, array in (("at", made.at), ("start", start), ("length", made.length)):
                np.save(folder / f"{name}.npy", array.astype(np.int64))
            (folder / "plan.json").write_text(json.dumps(about, indent=1) + "\n")
            checksums.write(folder)
    return Plan(path)
