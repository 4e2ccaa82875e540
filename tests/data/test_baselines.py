import zlib

import pytest

from data.baselines import gzip_bits_per_byte
from data.documents import Document


def test_gzip_is_weighted_by_bytes() -> None:
    texts = ["abc" * 1000, "é", ""]
    documents: list[Document] = [{"id": str(i), "text": t} for i, t in enumerate(texts)]
    compressed = 0
    for text in texts:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        # RFC 1952: a header of 10 bytes, the deflate stream, CRC-32 and length of 4 bytes each.
        compressed += 10 + len(deflate.compress(text.encode()) + deflate.flush()) + 8
    assert gzip_bits_per_byte(documents) == pytest.approx(8 * compressed / 3002)
    assert gzip_bits_per_byte([]) == 0
