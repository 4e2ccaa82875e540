"""What a source of text gives: documents that can be read by index.

A new source is one file in data/sources/ with a function that returns a `Source`, and one row of
the table in data/sources/__init__.py.
"""

import abc
import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, overload

from errors import UserError

Progress = Callable[[str, int, int], None]  # (what is done, with its unit, done, in all)


class Document(TypedDict):
    """A text and the name it has in its dataset."""

    id: str
    text: str


class Documents(Sequence[Document], abc.ABC):
    """The documents of a split, in a fixed order. Threads may read them together.

    A source has `__len__` and `read`; nothing of it may grow with the texts in memory.
    """

    @abc.abstractmethod
    def read(self, index: int) -> Document:
        """Document `index`, 0 <= index < len(self).

        Raises:
          UserError: it cannot be read; one line names it.
        """

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self.read(i) for i in range(*index.indices(len(self)))]
        return self.read(range(len(self))[index])


@dataclass(frozen=True)
class Source:
    """A dataset that was found, and how to open it.

    Attributes:
      name: for people, as "python_stdlib (Python 3.11.7)" or "c4/en/3.0.1".
      fingerprint: names the content, the splits and the order of the documents. It is known
        without reading them all, so that a warm start opens nothing.
      open: (split, progress) -> the documents of that split. It may build something in the cache,
        and calls `progress` every few seconds as it does. It raises UserError where there is no
        such split, or where it cannot be read.
    """

    name: str
    fingerprint: str
    open: Callable[[str, Progress], Documents]


class Wanted(Protocol):
    """What a source may know of the config (DataConfig, data/config.py)."""

    @property
    def data_dir(self) -> str: ...
    @property
    def text_key(self) -> str: ...
    @property
    def train_split(self) -> str: ...
    @property
    def eval_split(self) -> str: ...


def select(
    split: str, available: Mapping[str, Documents], name: str, otherwise: str = ""
) -> Documents:
    """The documents of a TFDS split expression, such as "train[:20%]+validation[5:]".

    Args:
      available: the whole splits.
      name: of the source, for messages.
      otherwise: what else the user may do, for messages.

    Raises:
      UserError: there is no such split, or it has no documents.
    """
    import tensorflow_datasets as tfds  # takes a second, which a warm start does not spend

    lengths = {key: _Length(len(documents)) for key, documents in available.items()}
    why = "it is empty"
    try:
        asked = tfds.core.ReadInstruction.from_spec(split).to_absolute(lengths)
    except (ValueError, AssertionError, NotImplementedError) as error:
        why = line_of(error)
        asked = []
    parts = [_Slice(available[part.splitname], slice(part.from_, part.to)) for part in asked]
    chosen = _Joined(parts)
    if not len(chosen):
        there = ", ".join(f"{key} ({len(d):,} documents)" for key, d in available.items())
        raise UserError(
            f"{name} has no documents for split {split!r} ({why}): its splits are {there}"
            + otherwise
        )
    return chosen


def line_of(error: Exception) -> str:
    """The first line of an error's message, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


@dataclass(frozen=True)
class _Length:
    """What TFDS asks of a split to resolve an expression."""

    num_examples: int

    @property
    def shard_lengths(self) -> list[int]:
        return [self.num_examples]


class _Slice(Documents):
    """documents[which], without reading them."""

    def __init__(self, documents: Documents, which: slice) -> None:
        self._documents, self._range = documents, range(len(documents))[which]

    def __len__(self) -> int:
        return len(self._range)

    def read(self, index: int) -> Document:
        return self._documents.read(self._range[index])


class _Joined(Documents):
    """Some documents after others."""

    def __init__(self, parts: Sequence[Documents]) -> None:
        self._parts = parts
        self._ends = list(itertools.accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int) -> Document:
        part = bisect.bisect_right(self._ends, index)
        return self._parts[part].read(index - (self._ends[part - 1] if part else 0))
