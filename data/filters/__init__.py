"""Steps between documents and tokens: one file each, and one row of a table.

A filter sees one document at a time, in the processes that tokenize. What depends on all documents
together (duplicates) is decided when all are tokenized: each document leaves a signature of fixed
size, and those that are copies of an earlier one are not written into the store.
"""

import dataclasses
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data import cache
from data.documents import Document
from data.filters import c4, duplicates, gopher, language, overlap, personal
from data.filters.config import OFF, FilterConfig

Counts = Counter[str]


class Filter(Protocol):
    """One kind of filter, ready to work."""

    def __call__(self, document: Document, counts: Counts) -> Document | None:
        """The document, maybe changed; None leaves it out. Both are counted, by a reason."""


class Duplicates(Protocol):
    """A kind of duplicates.

    Attributes:
      name: of the kind, as the manifest counts them.
      width: bytes of a signature.
    """

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...

    def signature(self, text: str) -> bytes:
        """What tells whether a text is a copy of another."""

    def find(self, signatures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Which documents are copies of an earlier one that stays.

        Args:
          signatures: uint8 [n, width] each, of all documents in their order.

        Yields:
          bool [n] for each.
        """


# In this order: what is cheap and drops much comes first. Personal data is masked last: what is
# evaluated on is not masked, and has to be found as it is written.
_FILTERS: Sequence[Callable[[FilterConfig, Path | None], Filter | None]] = (
    c4.make,
    gopher.make,
    language.make,
    overlap.make,
    personal.make,
)


def make(config: FilterConfig, overlaps: Path | None) -> list[Filter]:
    """The filters that are on.

    Args:
      overlaps: the n-grams of what is evaluated on, from overlap.save; where they are needed.

    Raises:
      UserError: one needs a package that is not there.
    """
    made = (one(config, overlaps) for one in _FILTERS)
    return [one for one in made if one is not None]


def make_duplicates(config: FilterConfig) -> list[Duplicates]:
    """The kinds of duplicates that are to be found.

    Raises:
      UserError: one needs a package that is not there.
    """
    found: list[Duplicates] = []
    if config.exact_duplicates:
        found.append(duplicates.Exact())
    if config.near_duplicates:
        found.append(duplicates.Near(config.near_duplicates))
    return found


def identity(config: FilterConfig) -> str:
    """Names what the filters do; "" where all are off."""
    if config == OFF:
        return ""
    packages = {
        "py3langid": bool(config.languages),
        "presidio-analyzer": bool(config.mask),
        "phonenumbers": "phone" in config.mask,
        "tldextract": "email" in config.mask,
        "datasketch": bool(config.near_duplicates),
    }
    return cache.key(
        config=repr(dataclasses.astuple(config)),
        packages=repr([(name, _version(name)) for name, used in packages.items() if used]),
        version=VERSION,
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"  # what needs it says so


VERSION = 2  # part of a filtered store's address: raise it when a filter changes

__all__ = [
    "OFF",
    "Counts",
    "Duplicates",
    "Filter",
    "FilterConfig",
    "identity",
    "make",
    "make_duplicates",
]
