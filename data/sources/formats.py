"""Kinds of files: one row of a table each, by the ending of the name, and a function that reads.

.txt, .md and .py files are a document each. .jsonl and .json files have a JSON object a line,
.parquet files a row, .array_record files a record a document.
"""

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from data.documents import Document
from data.sources import arrayrecord, compression, parquet, storage
from data.sources.pieces import Piece
from data.sources.records import Maker

_BOM = "\ufeff".encode()  # at the beginning of a file it is a mark of some editors, not text


class Format(NamedTuple):
    """How files of an ending are read.

    Attributes:
      endings: of the names, in front of that of the compression.
      read: (piece, maker, start) -> from document number `start` of the piece on, each with how
        many bytes of the piece have been read. It raises UserError, or `File.failures` where
        the file is damaged.
      is_whole: a file is one document, whose name is that of the file.
      is_compressible: compressed files are read as well.
      is_cut: large files that are not compressed may be read in pieces.
    """

    endings: tuple[str, ...]
    read: Callable[[Piece, Maker, int], Iterator[tuple[Document, int]]]
    is_whole: bool = False
    is_compressible: bool = True
    is_cut: bool = False


def read_whole(piece: Piece, maker: Maker, start: int = 0) -> Iterator[tuple[Document, int]]:
    """The one document of a text file. An empty file has none."""
    file = piece.file
    if start:
        return
    with storage.opened(file) as raw:
        content = compression.decompressed(raw, file.name).read()
    content = content.removeprefix(_BOM)
    if content:
        text, invalid = maker.decode(content, file.path)
        del content  # a document may be large: no more of it than need be is held at a time
        yield Document(file.name, text, invalid=invalid), file.size


def read_lines(piece: Piece, maker: Maker, start: int = 0) -> Iterator[tuple[Document, int]]:
    """The JSON objects of the lines that begin in the piece.

    A document without an "id" is named by its line, in a file that is cut by the byte where its
    line begins: which line that is only who reads the whole file knows.
    """
    file = piece.file
    with storage.opened(file) as raw:
        if piece.begin:
            raw.seek(piece.begin - 1)
            raw.readline()  # a line that began before this piece, or what ends it
        begin = raw.tell()
        end = sys.maxsize if piece.end is None else piece.end
        stream = compression.decompressed(raw, file.name)
        number = 0
        while begin < end and (line := stream.readline()):
            number += 1
            name = f"{file.name}:@{begin}" if piece.is_cut else f"{file.name}:{number}"
            is_first, begin = not begin, begin + len(line)
            if is_first:
                line = line.removeprefix(_BOM)
            if not line or line.isspace():
                continue
            if start:
                start -= 1
                continue
            document = maker.from_json(line, name, f"line {name}")
            del line  # see above
            yield document, min(raw.tell() - piece.begin, piece.size)
            del document


FORMATS = (
    Format((".txt", ".md", ".py"), read_whole, is_whole=True),
    Format((".jsonl", ".json"), read_lines, is_cut=True),
    Format((".parquet",), parquet.read, is_compressible=False),
    Format((".array_record",), arrayrecord.read),
)
ENDINGS = tuple(ending for row in FORMATS for ending in row.endings)


def of(name: str) -> Format | None:
    """The format of a file, if there is one for its name."""
    compressed = compression.ending_of(name)
    bare = name.removesuffix(compressed)
    for row in FORMATS:
        if bare.endswith(row.endings) and (row.is_compressible or not compressed):
            return row
    return None
