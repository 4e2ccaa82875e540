"""What was found out about the positions of a plan's bins: made once, kept on disk, read at random.

An annotation is of a position in its row: what a decoder says there depends on all that is before
it in the bin. So it is kept by bins, those that a run will show:

    bins.npy     int64 [n], ascending: which bins of the plan
    NAME.npy     [n * L, ...]: of each position of these bins, in their order
    about.json   counts, and what was said of it when it was made
    files.json   size and SHA-256 of every file above

It is made in parts, each of which appears whole in a folder beside it: what a killed pass has done
is not done again.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import cache, checksums, rows
from data.documents import Progress
from data.plan import Plan
from data.rows import Batch
from data.store import TokenStore

VERSION = 1  # part of an address: raise it when the layout or the content changes

Arrays = dict[str, np.ndarray]


class Found(NamedTuple):
    """What was found out about some bins.

    Attributes:
      arrays: by name, [bins, L, ...].
      sums: numbers to be added up over all of them, for people.
    """

    arrays: Arrays
    sums: Mapping[str, float]


class Annotations:
    """Annotations, opened. Threads may read them together.

    Attributes:
      about: what was recorded when they were made; "sums" are those of all bins.
      n_bytes: of all arrays.
    """

    def __init__(self, path: Path) -> None:
        """Opens those at `path`; files up to 256 MiB are checked.

        Raises:
          UserError: a file is missing, truncated or damaged.
        """
        self.path = path
        noted = checksums.read(path)
        checksums.check(path, noted)
        try:
            self.about: dict[str, Any] = json.loads((path / "about.json").read_text())
            self._length: int = self.about["length"]
            self._bins: np.ndarray = np.load(path / "bins.npy")
            self._arrays = {
                name: np.asarray(np.load(path / f"{name}.npy", mmap_mode="r"))
                for name in self.about["names"]
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise checksums.damaged(path / "about.json") from error
        self.n_bytes = sum(array.nbytes for array in self._arrays.values())

    def fill(self, batch: Batch, where: np.ndarray, positions: np.ndarray) -> None:
        """Writes the annotations of whole bins into a batch: [B, L, ...] by name.

        Args:
          where: int64 [R], rows of the batch.
          positions: int64 [R], where each begins in the plan.
        """
        rows_, length = batch["tokens"].shape
        assert length == self._length and not (positions % length).any(), "rows are whole bins"
        bins = positions // length
        index = np.searchsorted(self._bins, bins)
        assert np.array_equal(self._bins[np.minimum(index, self._bins.size - 1)], bins)
        for name, array in self._arrays.items():
            tail, dtype = array.shape[1:], _in_batches(array.dtype)
            if name not in batch:
                batch[name] = np.zeros((rows_, length, *tail), dtype)
            for row, i in zip(where.tolist(), index.tolist(), strict=True):
                batch[name][row] = array[i * length : (i + 1) * length]


def _in_batches(stored: np.dtype) -> np.dtype:
    return np.dtype(np.int32) if stored.kind == "u" else stored


class Asked(NamedTuple):
    """What is to be annotated.

    Attributes:
      name: of it, for people.
      identity: of its rows, all of them.
      length: of a row (L).
      bins: int64 [n], ascending: the numbers of the rows.
      at_once: rows of a batch.
      batches: functions of some of a batch's rows, each of the next `at_once` of `bins`; rows
        after the last are padding.
    """

    name: str
    identity: str
    length: int
    bins: np.ndarray
    at_once: int
    batches: Sequence[Callable[[slice], Batch]]


def address(asked: Asked, **what: str | int) -> Path:
    """Where annotations are kept, made or not.

    Args:
      asked: of which rows.
      what: all that determines what they say of them.
    """
    of = cache.key(rows=asked.identity, version=VERSION, **what)
    return cache.root() / "annotations" / of


def of_bins(name: str, store: TokenStore, plan: Plan, bins: np.ndarray, count: int) -> Asked:
    """Some bins of a plan."""
    identity = cache.key(
        store=store.fingerprint,
        plan=plan.identity,
        bins=cache.key(bins=json.dumps(bins.tolist())),
    )
    return Asked(name, identity, plan.length, bins, count, list(_batches(store, plan, bins, count)))


def _batches(
    store: TokenStore, plan: Plan, bins: np.ndarray, count: int
) -> Iterator[Callable[[slice], Batch]]:
    for first in range(0, bins.size, count):
        some = bins[first : first + count]

        def make(which: slice, some: np.ndarray = some) -> Batch:
            wanted = np.arange(*which.indices(count))
            batch = rows.empty(wanted.size, plan.length)
            (here,) = np.nonzero(wanted < some.size)
            pieces = plan.pieces(some[wanted[here]] * plan.length, plan.length)
            rows.fill(batch, here, pieces, store)
            return batch

        yield make


class Making:
    """Annotations that are being made, on from where a killed pass stopped.

    A part is named by the rows that it is of: with another number of rows at once it is another
    part. Several may make the same together: whoever ends first has made it for all.

    Args:
      path: from `address`.
      asked: what is annotated.

    Attributes:
      done: of each of the batches whether its part is there.
    """

    def __init__(self, path: Path, asked: Asked) -> None:
        self._path, self._folder = path, cache.building_folder(path)
        self._asked = asked
        cache.make_folder(self._folder)
        parts = [self._part(number) for number in range(len(asked.batches))]
        self.done = np.array([part.is_file() for part in parts], bool)

    def add(self, number: int, found: Found) -> None:
        """Keeps the part of a batch, whole or not at all."""
        part = self._part(number)
        partial = part.with_name(f".{part.stem}.{socket.gethostname()}.{os.getpid()}.partial")
        with cache.full_disk_told(self._folder), self._unless_made():
            with partial.open("wb") as file:
                sums: dict[str, Any] = {"sums": np.array(json.dumps(found.sums))}
                np.savez(file, **(found.arrays | sums))
            partial.replace(part)
        self.done[number] = True

    def publish(self, about: Mapping[str, Any], progress: Progress) -> Annotations:
        """Joins the parts.

        Args:
          about: to be recorded.
          progress: told of what is done.

        Raises:
          ValueError: a part is not of its rows.
        """
        with self._unless_made(), cache.publish(self._path) as folder:
            self._join(folder, about, progress)
        cache.has(self._path)  # the parts go
        return Annotations(self._path)

    def _join(self, folder: Path, about: Mapping[str, Any], progress: Progress) -> None:
        bins, length = self._asked.bins, self._asked.length
        total: dict[str, float] = {}
        files: dict[str, np.memmap[Any, Any]] = {}
        for number in range(self.done.size):
            progress("joining annotations: part", number, self.done.size)
            first, end = self._rows(number)
            with np.load(self._part(number)) as part:  # no pickle: NumPy's default
                arrays = {name: part[name] for name in part.files if name != "sums"}
                for name, value in json.loads(str(part["sums"])).items():
                    total[name] = total.get(name, 0.0) + value
            for name, array in arrays.items():
                if array.shape[:2] != (end - first, length) or (number and name not in files):
                    raise ValueError(f"{self._part(number)} is not of rows {first} to {end}")
                flat = array.reshape(-1, *array.shape[2:])
                if name not in files:
                    shape = (bins.size * length, *flat.shape[1:])
                    files[name] = np.lib.format.open_memmap(
                        folder / f"{name}.npy", "w+", flat.dtype, shape
                    )
                files[name][first * length : end * length] = flat
        if self.done.size and end != bins.size:
            raise ValueError(f"annotations of {end} of {bins.size} rows")
        for file in files.values():
            file.flush()
        np.save(folder / "bins.npy", bins)
        facts = {**about, "length": length, "names": sorted(files), "sums": total}
        (folder / "about.json").write_text(json.dumps(facts, indent=1) + "\n")
        checksums.write(folder)

    @contextlib.contextmanager
    def _unless_made(self) -> Iterator[None]:
        """Lets be what fails for want of a file where another has made all: its parts are gone."""
        try:
            yield
        except FileNotFoundError:
            if not cache.is_there(self._path):
                raise

    def _rows(self, number: int) -> tuple[int, int]:
        """Of a batch: [first, end)."""
        first = number * self._asked.at_once
        return first, min(first + self._asked.at_once, self._asked.bins.size)

    def _part(self, number: int) -> Path:
        first, end = self._rows(number)
        return self._folder / f"{first:09d}-{end:09d}.npz"


def together(found: Sequence[Annotations]) -> dict[str, float]:
    """The sums of several."""
    total: dict[str, float] = {}
    for one in found:
        for name, value in one.about["sums"].items():
            total[name] = total.get(name, 0.0) + value
    return total
