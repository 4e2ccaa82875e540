import gzip
import io
import lzma
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from data.sources.compression import decompressed

WRITERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
ENDINGS = pytest.mark.parametrize("ending", WRITERS)
TEXT = b"".join(b"line %d\n" % (i * i) for i in range(20_000))


def read(content: bytes, ending: str) -> bytes:
    return decompressed(io.BytesIO(content), f"x{ending}").read()


@ENDINGS
@given(contents=st.lists(st.binary(max_size=5000), max_size=4), zeros=st.integers(0, 3))
def test_streams_one_after_another_are_read_as_one(
    ending: str, contents: list[bytes], zeros: int
) -> None:
    stored = b"".join(map(WRITERS[ending], contents)) + bytes(4 * zeros)
    assert read(stored, ending) == b"".join(contents)


@ENDINGS
def test_lines_of_what_expands_much(ending: str) -> None:
    content = (b"x" * 3_000_000 + b"\n") * 3
    stream = decompressed(io.BytesIO(WRITERS[ending](content)), f"x{ending}")
    assert [len(line) for line in stream] == [3_000_001] * 3


@ENDINGS
def test_what_is_cut_short_or_damaged_is_an_error(ending: str) -> None:
    stored = WRITERS[ending](TEXT)
    flipped = bytearray(stored)
    flipped[len(stored) // 2] ^= 0xFF
    for bad in (stored[: len(stored) // 2], stored[:-1], bytes(flipped), stored + b"more"):
        with pytest.raises(OSError):
            read(bad, ending)
    with pytest.raises(OSError):
        read(b"no archive", ending)


@ENDINGS
def test_what_comes_before_the_end_is_read(ending: str) -> None:
    stored = WRITERS[ending](TEXT) + WRITERS[ending](TEXT)[:-1]
    stream = decompressed(io.BytesIO(stored), f"x{ending}")
    assert b"".join(stream.readline() for _ in range(20_000)) == TEXT
    with pytest.raises(OSError, match="ends before its end marker"):
        stream.read()


def test_a_frame_to_skip_is_skipped() -> None:
    skipped = (0x184D2A50).to_bytes(4, "little") + (7).to_bytes(4, "little") + b"ignored"
    one = WRITERS[".zst"](b"one")
    assert read(one + skipped, ".zst") == b"one"
    assert read(skipped + one, ".zst") == b"one"
