"""Parquet files: a row is a document."""

from collections.abc import Callable, Iterator
from typing import Any

from data import packages
from data.documents import Document
from data.sources import storage
from data.sources.pieces import Piece
from data.sources.records import Maker
from data.sources.storage import File
from errors import UserError

_HELD_BYTES = 4 << 20  # of the rows that are decoded together, about
_HELD_ROWS = 1024


def read(piece: Piece, maker: Maker, start: int = 0) -> Iterator[tuple[Document, int]]:
    """The rows, row group by row group. Columns of kinds that JSON does not have are not read."""
    file = piece.file
    if not file.size:
        return
    with storage.opened(file) as raw:
        table = _table(file, raw)
        types = _types(table, maker.text_key)
        if piece.like is not None and piece.like != file:
            _check_like(piece.like, file, types, maker.text_key)
        if maker.text_key and maker.text_key not in types:
            raise UserError(
                f"{file.path} has no column {maker.text_key!r}, but "
                f"{', '.join(sorted(table.schema_arrow.names))}: set config.data.text_key"
            )
        metadata = table.metadata
        number = 0
        for group in range(metadata.num_row_groups):
            about = metadata.row_group(group)
            if start >= about.num_rows:
                start -= about.num_rows
                number += about.num_rows
                continue
            held = _HELD_BYTES * about.num_rows // max(1, about.total_byte_size)
            batches = table.iter_batches(
                min(max(1, held), _HELD_ROWS), row_groups=[group], columns=list(types)
            )
            for batch in _batches(batches, file, number):
                yield from _documents(batch, number, start, piece, maker, metadata.num_rows)
                start = max(0, start - batch.num_rows)
                number += batch.num_rows


def _documents(
    batch: Any, number: int, start: int, piece: Piece, maker: Maker, n_rows: int
) -> Iterator[tuple[Document, int]]:
    columns = {
        name: _bytes_of(column)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    for i in range(start, batch.num_rows):
        name = f"{piece.file.name}:{number + i + 1}"
        where, record, invalid = f"row {name}", {}, 0
        for key, column in columns.items():
            try:
                value = column[i].as_py()
            except UnicodeDecodeError as error:  # of a text inside a list or a struct
                raise UserError(f"{where} is not UTF-8 in column {key!r}: repair it") from error
            if isinstance(value, bytes) and key != maker.text_key:
                value, more = maker.decode(value, where)
                invalid += more
            record[key] = value
        yield (
            maker.from_record(record, name, where, invalid),
            piece.size * (number + i + 1) // n_rows,
        )


def _table(file: File, raw: Any) -> Any:
    parquet = packages.needed("pyarrow.parquet", "pyarrow", f"reading {file.path}")
    try:
        # Columns are read as they are decoded, not a row group at a time.
        return parquet.ParquetFile(raw, pre_buffer=False, buffer_size=1 << 20)
    except Exception as error:  # pyarrow's own, which are of several kinds
        raise storage.unreadable(file, error) from error


def _batches(batches: Iterator[Any], file: File, number: int) -> Iterator[Any]:
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:  # likewise
            after = f"{file.name}:{number}" if number else ""
            raise storage.unreadable(file, error, after) from error
        number += batch.num_rows
        yield batch


def _types(table: Any, text_key: str) -> dict[str, str]:
    """The columns that are read: name -> kind."""
    return {
        field.name: _kind(field.type)
        for field in table.schema_arrow
        if field.name == text_key or _is_plain(field.type)
    }


def _check_like(like: File, file: File, mine: dict[str, str], text_key: str) -> None:
    """Refuses a file whose columns are not those of the first one."""
    with storage.opened(like) as raw:
        first = _types(_table(like, raw), text_key)
    if mine == first:
        return
    name = sorted(mine.items() ^ first.items())[0][0]
    raise UserError(
        f"the columns of {file.path} are not those of {like.path}: {name!r} is "
        f"{mine.get(name, 'missing')}, not {first.get(name, 'missing')}; write them alike, or let "
        "the pattern match files of one kind"
    )


def _kind(kind: Any) -> str:
    """The name of a type; types that are read alike, such as string and large_string, have one."""
    is_a = packages.needed("pyarrow.types", "pyarrow", "Parquet")
    if is_a.is_dictionary(kind):
        return _kind(kind.value_type)
    if is_a.is_list(kind) or is_a.is_large_list(kind):
        return f"list<{_kind(kind.value_type)}>"
    if is_a.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {_kind(field.type)}' for field in kind)}>"
    bytes_too = (  # of them only the text is read, and it may be either
        is_a.is_binary,
        is_a.is_large_binary,
        is_a.is_binary_view,
        is_a.is_fixed_size_binary,
    )
    return "string" if any(check(kind) for check in (_is_text, *bytes_too)) else str(kind)


def _is_text(kind: Any) -> bool:
    is_a = packages.needed("pyarrow.types", "pyarrow", "Parquet")
    if is_a.is_dictionary(kind):
        return _is_text(kind.value_type)
    checks: tuple[Callable[[Any], bool], ...] = (
        is_a.is_string,
        is_a.is_large_string,
        is_a.is_string_view,
    )
    return any(check(kind) for check in checks)


def _is_plain(kind: Any) -> bool:
    """Whether JSON has such values."""
    is_a = packages.needed("pyarrow.types", "pyarrow", "Parquet")
    if is_a.is_list(kind) or is_a.is_large_list(kind):
        return _is_plain(kind.value_type)
    if is_a.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    checks = (is_a.is_boolean, is_a.is_integer, is_a.is_floating, is_a.is_null, _is_text)
    return any(check(kind) for check in checks)


def _bytes_of(column: Any) -> Any:
    """A column of texts as bytes, which may be no UTF-8; another as it is."""
    if not _is_text(column.type):
        return column
    pyarrow = packages.needed("pyarrow", "pyarrow", "Parquet")
    if hasattr(column, "dictionary_decode"):
        column = column.dictionary_decode()
    return column.cast(pyarrow.large_binary())
