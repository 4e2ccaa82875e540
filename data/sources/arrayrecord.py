"""ArrayRecord files: a record is a document, a JSON object or its plain text."""

import json
from collections.abc import Iterator
from typing import Any

from data.documents import Document
from data.sources import storage
from data.sources.pieces import Piece
from data.sources.records import Maker
from data.sources.storage import File

_HELD_BYTES = 1 << 20  # of the file, in records that are read together, about
_HELD_RECORDS = 256


def read(piece: Piece, maker: Maker, start: int = 0) -> Iterator[tuple[Document, int]]:
    """The records. If the first one is a JSON object, all have to be."""
    file = piece.file
    if not file.size:
        return
    with storage.local_copy(file) as path:
        records = _opened(file, path)
        n = len(records)
        held = min(max(1, _HELD_BYTES * n // file.size), _HELD_RECORDS)
        are_objects = n > 0 and _is_object(_read(file, records, range(1))[0])
        for begin in range(start, n, held):
            some = range(begin, min(begin + held, n))
            for i, content in zip(some, _read(file, records, some), strict=True):
                name = f"{file.name}:{i + 1}"
                where = f"record {name}"
                if are_objects:
                    document = maker.from_json(content, name, where)
                else:
                    text, invalid = maker.decode(content, where)
                    document = Document(name, text, invalid=invalid)
                yield document, file.size * (i + 1) // n


def _opened(file: File, path: str) -> Any:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    try:
        records = ArrayRecordDataSource(path)
        len(records)
    except Exception as error:  # whatever the reader of the file format raises
        raise storage.unreadable(file, error) from error
    return records


def _read(file: File, records: Any, some: range) -> list[bytes]:
    try:
        return list(records.__getitems__(list(some)))
    except Exception as error:  # likewise
        if len(some) > 1:  # names the record itself
            return [_read(file, records, range(i, i + 1))[0] for i in some]
        after = f"{file.name}:{some.start}" if some.start else ""
        raise storage.unreadable(file, error, after) from error


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False
