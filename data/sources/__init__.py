"""Where text comes from: one file a source, and one row of this table.

A source's file has `find(name, wanted, progress)`: `name` is what stands after the prefix in
data.source. It returns a `Source` (data/documents.py), quickly, or raises UserError.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from data.documents import Progress, Source, Wanted
from data.sources import files, hf, python_stdlib, tfds

Finder = Callable[[str, Wanted, Progress], Source]


class Row(NamedTuple):
    """How data.source is written, for messages, and what finds it."""

    form: str
    find: Finder


SOURCES: Mapping[str, Row] = {  # a prefix that ends in ":" has something after it, another nothing
    "python_stdlib": Row("python_stdlib", python_stdlib.find),
    "files:": Row("files:PATTERN", files.find),
    "hf:": Row("hf:PATH_OR_NAME/config", hf.find),
    "tfds:": Row("tfds:name/config", tfds.find),
}


def resolve(source: str) -> tuple[Finder, str]:
    """The finder of `source`, and the name to give it.

    Raises:
      ValueError: no row is for it; one line lists them.
    """
    prefix, colon, name = source.partition(":")
    row = SOURCES.get(prefix + colon)
    if row is None or (colon and not name):
        forms = ", ".join(repr(row.form) for row in SOURCES.values())
        raise ValueError(f"source={source!r}: use one of {forms}")
    return row.find, name


def find(source: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the dataset that `source` names.

    Raises:
      ValueError: no row is for it.
      UserError: there is no such dataset, or it cannot be read.
    """
    finder, name = resolve(source)
    return finder(name, wanted, progress)
