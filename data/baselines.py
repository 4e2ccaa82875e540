"""What a general-purpose compressor makes of the same documents, in bits per byte."""

import functools
import gzip
from collections.abc import Callable, Iterable
from typing import NamedTuple

from data.documents import Document
from data.waiting import steadily

UNIFORM_BITS_PER_BYTE = 8.0  # every byte equally likely


class Measured(NamedTuple):
    """A figure, and the bytes of text that it is of."""

    bits_per_byte: float
    text_bytes: int


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
