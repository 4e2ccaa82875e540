import zlib
from collections.abc import Iterator

import pytest

from data.baselines import gzip_bits_per_byte
from data.documents import Document


def test_gzip_is_weighted_by_bytes() -> None:
    texts = ["abc" * 1000, "é", ""]
    documents = [Document(str(i), text) for i, text in enumerate(texts)]
    compressed = 0
    for text in texts:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        # RFC 1952: a header of 10 bytes, the deflate stream, CRC-32 and length of 4 bytes each.
        compressed += 10 + len(deflate.compress(text.encode()) + deflate.flush()) + 8
    measured = gzip_bits_per_byte(documents, at_most=10_000)
    assert measured.bits_per_byte == pytest.approx(8 * compressed / 3002)
    assert measured.text_bytes == 3002
    assert gzip_bits_per_byte([], at_most=1) == (0, 0)


def test_no_more_is_measured_than_asked() -> None:
    def documents() -> Iterator[Document]:
        yield Document("0", "abc" * 10)
        yield Document("1", "abc" * 1000)
        raise AssertionError("read beyond what was asked")

    told: list[int] = []
    measured = gzip_bits_per_byte(documents(), at_most=60, progress=told.append)
    cut = [Document("0", "abc" * 10), Document("1", "abc" * 10)]
    assert measured == gzip_bits_per_byte(cut, at_most=60) and measured.text_bytes == 60
    assert told == [30, 60]
