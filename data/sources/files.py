"""Text files by pattern: "files:/data/notes/**/*.md", "files:/data/books/*.jsonl.gz".

A .txt, .md or .py file is one document, named by its path below the folder where the pattern's
wildcards begin. A .jsonl or .jsonl.gz file has one document a line, a JSON object: its text is the
value of data.text_key, its name the value of "id" where it has one, else "file:line". Lines, and
what is compressed, cannot be read by index, so they are copied to the cache as ArrayRecord.

Splits are "train" and "validation", by a hash of the document's name, and parts of them
("train[:10%]"); or patterns that choose among the files ("train-*.jsonl.gz").
"""

import fnmatch
import functools
import glob
import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from data import cache, fingerprint
from data.documents import Document, Documents, Progress, Source, Wanted, line_of, select
from errors import UserError

VERSION = 1  # part of the fingerprint: raise it when names, order or splits change
VALIDATION_ONE_IN = 20  # documents
_WHOLE = (".txt", ".md", ".py")
_LINES = (".jsonl", ".jsonl.gz")
_ENDINGS = _WHOLE + _LINES
_LISTED = 8  # files named in a message
_OWN_SPLITS = "; or let data.train_split and data.eval_split be patterns of file names"

Files = Mapping[str, Path]  # name below the pattern's folder -> path, in ascending order of name


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the files that the pattern `name` matches."""
    found = _match(name)
    _check_splits(name, found, wanted.train_split, wanted.eval_split)
    content = cache.key(files=fingerprint.of_files(found, progress), version=VERSION)
    opener = functools.partial(_open, name, found, content, wanted.text_key)
    return Source(f"files:{name} ({len(found):,} files)", content, opener)


class TextFiles(Documents):
    """Files that are a document each.

    Args:
      files: document id -> path, in the order of the documents.
    """

    def __init__(self, files: Files) -> None:
        self._names = list(files)
        self._files = files

    def __len__(self) -> int:
        return len(self._names)

    def read(self, index: int) -> Document:
        name = self._names[index]
        path = self._files[name]
        try:
            return {"id": name, "text": path.read_bytes().decode()}
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read {path} as UTF-8 text ({line_of(error)}): repair it, or leave it out"
            ) from error


class _Records(Documents):
    """The copy of documents in the cache."""

    def __init__(self, path: Path) -> None:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._path = path
        try:
            self._records = ArrayRecordDataSource(str(path))
        except Exception as error:  # whatever the reader of the file format raises
            raise self._damaged() from error

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> Document:
        try:
            name, text = json.loads(self._records[index])
            return {"id": name, "text": text}
        except Exception as error:  # likewise
            raise self._damaged() from error

    def _damaged(self) -> UserError:
        return UserError(
            f"{self._path} is missing or damaged: delete the directory {self._path.parent}, and "
            "it is built again"
        )


def _match(pattern: str) -> Files:
    where = f"data.source 'files:{pattern}'"
    if "://" in pattern:
        raise UserError(
            f"{where}: only mounted file systems are read; mount the bucket and give its path"
        )
    path = Path(pattern).expanduser().absolute()
    if path.is_dir():
        raise UserError(
            f"{where} is a folder: give a pattern of files, such as 'files:{pattern}/**/*.txt'"
        )
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parent.parts))
    found = sorted(p for p in map(Path, glob.glob(str(path), recursive=True)) if p.is_file())
    if not found:
        raise UserError(f"{where} matches no file: correct the path or the pattern")
    files = {p.relative_to(root).as_posix(): p for p in found}
    for file in files:
        if not file.endswith(_ENDINGS):
            raise UserError(f"{where} matches {file}: use a pattern of {', '.join(_ENDINGS)} files")
    kinds = {file.endswith(_LINES): file for file in files}
    if len(kinds) > 1:
        raise UserError(
            f"{where} matches {kinds[False]} and {kinds[True]}: documents are either whole files "
            "or lines; use a pattern of one kind"
        )
    return dict(sorted(files.items()))


def _is_pattern(split: str) -> bool:
    return any(mark in split for mark in ".*?/")  # which no TFDS split expression has


def _chosen(files: Files, split: str) -> Files:
    """The files whose whole name matches; unlike in the source's pattern, `*` also matches "/"."""
    return {name: path for name, path in files.items() if fnmatch.fnmatchcase(name, split)}


def _check_splits(name: str, files: Files, train: str, evaluation: str) -> None:
    """Refuses to train on what is evaluated on."""
    if _is_pattern(train) != _is_pattern(evaluation):
        raise UserError(
            f"data.train_split={train!r} and data.eval_split={evaluation!r} of data.source "
            f"'files:{name}': give patterns of file names for both or for neither"
        )
    if _is_pattern(train):
        both = _chosen(_chosen(files, train), evaluation)
        if both:
            raise UserError(
                f"data.train_split={train!r} and data.eval_split={evaluation!r} both match "
                f"{next(iter(both))}: make them apart"
            )


def _open(
    name: str, files: Files, content: str, text_key: str, split: str, progress: Progress
) -> Documents:
    lines = next(iter(files)).endswith(_LINES)
    if _is_pattern(split):
        chosen = _chosen(files, split)
        if not chosen:
            raise UserError(
                f"no file of data.source 'files:{name}' matches split {split!r}: there are "
                f"{', '.join(list(files)[:_LISTED])}{' …' if len(files) > _LISTED else ''}"
            )
        if not lines:
            return TextFiles(chosen)
        target = _address(content, text_key, split)
        return _copied(chosen, target, text_key, (split,), progress)[split]
    if lines:
        target = _address(content, text_key, "")
        whole = _copied(files, target, text_key, ("train", "validation"), progress)
    else:
        whole = {
            "train": TextFiles({n: p for n, p in files.items() if not _in_validation(n)}),
            "validation": TextFiles({n: p for n, p in files.items() if _in_validation(n)}),
        }
    return select(split, whole, f"files:{name}", _OWN_SPLITS)


def _in_validation(name: str) -> bool:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % VALIDATION_ONE_IN == 0


def _address(content: str, text_key: str, pattern: str) -> Path:
    name = cache.key(source=content, text_key=text_key, pattern=pattern)
    return cache.root() / "datasets" / name


def _copied(
    files: Files, target: Path, text_key: str, splits: Sequence[str], progress: Progress
) -> dict[str, Documents]:
    """The documents of JSON lines, by split, from the cache, where they are copied if need be.

    Args:
      splits: one name for all documents, or "train" and "validation".
    """
    if not cache.has(target):
        from array_record.python.array_record_module import ArrayRecordWriter

        with cache.publish(target) as building:
            writers = [
                ArrayRecordWriter(str(building / _part(i)), "group_size:1,zstd:3")
                for i in range(len(splits))
            ]
            for document in _read_lines(files, text_key, progress):
                held_back = len(splits) > 1 and _in_validation(document["id"])
                record = json.dumps([document["id"], document["text"]], ensure_ascii=False)
                writers[held_back].write(record.encode())
            for writer in writers:
                writer.close()
    return {split: _Records(target / _part(i)) for i, split in enumerate(splits)}


def _part(index: int) -> str:
    return f"{index}.array_record"


def _read_lines(files: Files, text_key: str, progress: Progress) -> Iterator[Document]:
    """Every document of JSON-lines files, in the order of the files and lines."""
    megabytes = sum(path.stat().st_size for path in files.values()) >> 20
    before = 0
    for name, path in files.items():
        number = 0
        try:
            with path.open("rb") as raw:
                lines: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if name.endswith(".gz") else raw
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield _document(line, f"{name}:{number}", text_key)
                    progress("copying to the cache: MB", before + raw.tell() >> 20, megabytes)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"cannot read {path} after line {number} ({line_of(error)}): repair the file"
            ) from error
        before += path.stat().st_size


def _document(line: bytes, where: str, text_key: str) -> Document:
    try:
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError(f"it is a {type(record).__name__}, not an object")
        if text_key not in record:
            raise ValueError(f"it has no {text_key!r}, but {', '.join(sorted(record))}")
        text = record[text_key]
        if not isinstance(text, str):
            raise ValueError(f"its {text_key!r} is not text")
        name = record.get("id")
        if not isinstance(name, str | int | None):
            raise ValueError("its 'id' is neither text nor a number")
        document: Document = {"id": where if name is None else str(name), "text": text}
        for part in (document["id"], text):
            part.encode()  # a lone surrogate, which JSON can spell, is no text
        return document
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"line {where} is not a document ({line_of(error)}): repair it, or set data.text_key"
        ) from error
