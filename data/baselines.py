"""What a general-purpose compressor makes of the same documents, in bits per byte."""

import functools
import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from data import checksums
from data.documents import Document
from data.waiting import steadily

UNIFORM_BITS_PER_BYTE = 8.0  # every byte equally likely
LAYOUT = 2  # part of a baseline's address: raise it when its files change
_FILE = "gzip.json"


class Measured(NamedTuple):
    """A figure, and the bytes of text that it is of."""

    bits_per_byte: float
    text_bytes: int


def save(measured: Measured, folder: Path) -> None:
    """Writes a figure."""
    (folder / _FILE).write_text(json.dumps(measured._asdict()) + "\n")
    checksums.write(folder)


def load(folder: Path) -> Measured:
    """The figure that `save` wrote.

    Raises:
      UserError: a file is missing or damaged.
    """
    checksums.check(folder, checksums.read(folder))
    try:
        return Measured(**json.loads((folder / _FILE).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise checksums.damaged(folder / _FILE) from error


def gzip_bits_per_byte(
    documents: Iterable[Document],
    at_most: int,
    progress: Callable[[int], None] = lambda text_bytes: None,
) -> Measured:
    """Compressed bits over bytes of text, each document on its own with `gzip -9`.

    Args:
      at_most: bytes of text to measure on; the document that goes beyond is cut there.
      progress: is told the bytes done, every few seconds.
    """
    compressed = text = 0
    for document in documents:
        content = document.text.encode()[: at_most - text]
        packed = steadily(
            functools.partial(gzip.compress, content, compresslevel=9, mtime=0),
            functools.partial(progress, text),
        )
        compressed += len(packed)
        text += len(content)
        progress(text)
        if text >= at_most:
            break
    return Measured(8 * compressed / max(text, 1), text)
