"""Compressed files as streams: .gz, .zst and .xz. A file that is cut short is an error."""

import io
import lzma
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from data import packages
from data.documents import line_of

# Bytes given to a decompressor at a time. What comes out of them can be 2**15 times as much, and
# all of it is held: so this bounds the memory at some 64 MB.
_FED = 1 << 11
_BUFFER = 1 << 18


def _gzip() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdDecompressor()
    zstandard = packages.needed("zstandard", "zstandard", "reading a .zst file")
    return zstandard.ZstdDecompressor().decompressobj()


# ending -> a decompressor of one stream: .decompress(bytes), .eof, .unused_data
COMPRESSIONS: Mapping[str, Callable[[], Any]] = {
    ".gz": _gzip,
    ".xz": lzma.LZMADecompressor,
    ".zst": _zstd,
}


def ending_of(name: str) -> str:
    """The ending that says how a file is compressed, or ""."""
    return next((ending for ending in COMPRESSIONS if name.endswith(ending)), "")


def decompressed(raw: BinaryIO, name: str) -> BinaryIO:
    """What the file `name`, opened as `raw`, holds; `raw` itself if it is not compressed.

    Reading raises OSError where it is damaged or ends too early; whatever comes before that is
    read first. Several streams one after another, and zeros after them, are read as one.

    Raises:
      UserError: the package that reads it is missing.
    """
    ending = ending_of(name)
    if not ending:
        return raw
    new = COMPRESSIONS[ending]
    return io.BufferedReader(_Decompressed(raw, new), _BUFFER)


class _Decompressed(io.RawIOBase):
    """See `decompressed`."""

    def __init__(self, raw: BinaryIO, new: Callable[[], Any]) -> None:
        self._raw, self._new = raw, new
        self._decompressor = new()
        self._started = False  # whether the decompressor has seen anything
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            fed = self._raw.read(_FED)
            if not fed:
                if self._started:
                    raise OSError("it ends before its end marker")
                return 0
            self._ready = memoryview(self._feed(fed))
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n

    def _feed(self, fed: bytes) -> bytes:
        pieces = []
        while fed:
            if not self._started:
                fed = fed.lstrip(b"\0")
                if not fed:
                    break
            self._started = True
            try:
                pieces.append(self._decompressor.decompress(fed))
            except Exception as error:  # each library has its own
                if isinstance(error, MemoryError):
                    raise
                raise OSError(line_of(error)) from error
            if not self._decompressor.eof:
                break
            fed = self._decompressor.unused_data
            self._decompressor, self._started = self._new(), False
        return b"".join(pieces)
