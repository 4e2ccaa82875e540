"""What a source gives: documents, in shards that are read from beginning to end.

A new source is one file in data/sources/ with a function that returns a `Source`, and one row of
the table in data/sources/__init__.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

Progress = Callable[[str, int, int], None]  # (what is done, with its unit, done, in all)

NO_SPLIT = "none"  # the eval_split of a corpus that is not evaluated on
_NONE: Mapping[str, Any] = MappingProxyType({})


class Document(NamedTuple):
    """A text.

    Attributes:
      id: its name in its source.
      text: what is to be learnt.
      metadata: what else its record holds.
      invalid: bytes of it that were not UTF-8 and are U+FFFD now.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = _NONE
    invalid: int = 0


class Shard(Protocol):
    """A part of a split, which one process reads. It can be pickled.

    Attributes:
      name: for messages.
      size: of what there is to read, in bytes or documents: for progress alone.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        """The documents from number `start` on, always in the same order.

        Each comes with how much of `size` has been read. Memory does not grow with the shard.

        Raises:
          UserError: one cannot be read; one line names it.
        """


@dataclass(frozen=True)
class Source:
    """A dataset that was found, and how to read it.

    Attributes:
      name: for people, as "python_stdlib (Python 3.11.7)" or "c4/en/3.0.1".
      fingerprint: names the content, the splits and the order of the documents. It is known
        without reading them all, so that a warm start reads nothing.
      shards: the parts of a split, in order. Raises UserError where there is no such split.
    """

    name: str
    fingerprint: str
    shards: Callable[[str], Sequence[Shard]]


class Wanted(Protocol):
    """What a source may know of the config (CorpusConfig, data/config.py)."""

    @property
    def data_dir(self) -> str: ...
    @property
    def text_key(self) -> str: ...
    @property
    def train_split(self) -> str: ...
    @property
    def eval_split(self) -> str: ...
    @property
    def invalid_utf8(self) -> Literal["refuse", "replace"]: ...


def line_of(error: Exception) -> str:
    """The first line of an error's message, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
