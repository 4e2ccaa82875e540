"""What a source of text gives: documents, in shards that are read one after another.

documents (text) -> filters -> tokens -> store. A new source is one file in data/sources/ with a
function that returns a `Source`, and one row of the table in data/sources/__init__.py.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

NO_SPLIT = "none"  # the eval_split of a corpus that is not evaluated on
Progress = Callable[[str, int, int], None]  # (what is done, with its unit, done, in all)


class _Nothing(Mapping[str, Any]):
    """An empty mapping that cannot be changed and, unlike a mappingproxy, can be pickled."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"


NO_METADATA: Mapping[str, Any] = _Nothing()


class Document(NamedTuple):
    """A text, and what its source says of it.

    Attributes:
      id: its name in its source, unique in a split.
      text: without lone surrogates, so that it has a UTF-8 form; "" where a task is to make an
        example of the record (data/examples/).
      metadata: what else the record holds, of the kinds that JSON has; there all that it holds.
      invalid: bytes that were not UTF-8 and became U+FFFD (data.invalid_utf8="replace").
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = NO_METADATA
    invalid: int = 0


class Shard(Protocol):
    """A part of a split's documents. It is small, and pickled to the process that reads it.

    Attributes:
      name: for messages and progress.
      size: of what is to be read, in bytes, as well as can be told without reading: for progress,
        and to tell how many processes are worth while.
    """

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        """From document number `start` of the shard on, in a fixed order.

        Memory grows neither with the shard nor with its files, only with a single document.

        Yields:
          each document, and how much of `size` has been read so far.

        Raises:
          UserError: something cannot be read; one line names it.
        """


@dataclass(frozen=True)
class Source:
    """A dataset that was found, and how to read it.

    Attributes:
      name: for people, as "python_stdlib (Python 3.11.7)" or "c4/en/3.0.1".
      fingerprint: names the content, the splits and the order of the documents. It is known
        without reading them all, so that a warm start reads nothing.
      shards: split -> its shards, whose documents one after another are the split. It raises
        UserError where there is no such split.
    """

    name: str
    fingerprint: str
    shards: Callable[[str], Sequence[Shard]]


class Wanted(Protocol):
    """What a source may know of the config (DataConfig, data/config.py)."""

    @property
    def data_dir(self) -> str: ...
    @property
    def text_key(self) -> str:
        """The field that holds the text; "" asks for whole records."""

    @property
    def train_split(self) -> str: ...
    @property
    def eval_split(self) -> str: ...
    @property
    def invalid_utf8(self) -> Literal["refuse", "replace"]: ...


def line_of(error: BaseException) -> str:
    """The first line of an error's message, short."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
