"""What a general-purpose compressor makes of the same documents, in bits per byte."""

import gzip
from collections.abc import Iterable

from data.documents import Document

UNIFORM_BITS_PER_BYTE = 8.0  # every byte equally likely


def gzip_bits_per_byte(documents: Iterable[Document]) -> float:
    """Compressed bits over bytes of text, each document on its own with `gzip -9`."""
    compressed = text = 0
    for document in documents:
        content = document["text"].encode()
        compressed += len(gzip.compress(content, compresslevel=9, mtime=0))
        text += len(content)
    return 8 * compressed / max(text, 1)
