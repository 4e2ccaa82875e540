"""Text files by pattern: "files:/data/notes/**/*.md", "files:/data/books/*.jsonl.gz".

A .txt, .md or .py file is one document, named by its path below the folder where the pattern's
wildcards begin. A .jsonl or .jsonl.gz file has one document a line, a JSON object: its text is the
value of data.text_key, its name the value of "id" where it has one, else "file:line".

Splits are "train" and "validation", by a hash of the document's name, and parts of them
("train[:10%]"); or patterns that choose among the files ("train-*.jsonl.gz").
"""

import fnmatch
import functools
import glob
import gzip
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import cache, fingerprint
from data.documents import NO_SPLIT, Document, Progress, Shard, Source, Wanted, line_of
from data.sources import splits
from errors import UserError

VERSION = 2  # part of the fingerprint: raise it when names, order or splits change
GROUP = 1 << 26  # bytes of small files that one process reads: part of the fingerprint
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
    shards = functools.partial(_shards, name, found, wanted.text_key, wanted.invalid_utf8)
    return Source(f"files:{name} ({len(found):,} files)", content, shards)


@dataclass(frozen=True)
class WholeFiles:
    """Files that are a document each.

    Attributes:
      files: document id and path, in the order of the documents.
    """

    name: str
    size: int
    files: tuple[tuple[str, Path], ...]
    invalid_utf8: str

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        read = 0
        for number, (name, path) in enumerate(self.files):
            if number < start:
                read += path.stat().st_size
                continue
            try:
                content = path.read_bytes()
            except OSError as error:
                raise UserError(f"cannot read {path} ({error.strerror}): repair it") from error
            read += len(content)
            text, invalid = text_of(content, str(path), self.invalid_utf8)
            del content  # it may be large
            yield Document(name, text, invalid=invalid), read


@dataclass(frozen=True)
class Lines:
    """A file of JSON lines, each a document.

    Attributes:
      parts: of the documents, those to keep; None is all.
    """

    name: str
    size: int
    path: Path
    text_key: str
    parts: tuple[splits.Part, ...] | None
    invalid_utf8: str

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        yield from itertools.islice(self._all(), start, None)

    def _all(self) -> Iterator[tuple[Document, int]]:
        number = 0
        try:
            with self.path.open("rb") as raw:
                packed = self.name.endswith(".gz")
                lines: Iterable[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        where = f"{self.name}:{number}"
                        document = _document(line, where, self.text_key, self.invalid_utf8)
                        if self.parts is None or splits.chosen(self.parts, document.id):
                            yield document, raw.tell()
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(
                f"cannot read {self.path} after line {number} ({line_of(error)}): repair the file"
            ) from error


def text_of(content: bytes, where: str, invalid_utf8: str) -> tuple[str, int]:
    """Text, and how many bytes of it were not UTF-8."""
    try:
        return content.decode(), 0
    except UnicodeDecodeError as error:
        if invalid_utf8 == "refuse":
            raise UserError(
                f"cannot read {where} as UTF-8 text ({line_of(error)}): repair it, leave it out, "
                "or set config.data.invalid_utf8='replace'"
            ) from error
    kept = content.decode(errors="ignore")
    return content.decode(errors="replace"), len(content) - len(kept.encode())


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
    if evaluation == NO_SPLIT:
        return
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


def _shards(
    name: str, files: Files, text_key: str, invalid_utf8: str, split: str
) -> Sequence[Shard]:
    parts = None
    if _is_pattern(split):
        files = _chosen(files, split)
        if not files:
            raise UserError(f"no file of data.source 'files:{name}' matches split {split!r}")
    else:
        parts = splits.parse(split, f"data.source 'files:{name}'", _OWN_SPLITS)
    sizes = {one: path.stat().st_size for one, path in files.items()}
    if next(iter(files)).endswith(_LINES):
        return [
            Lines(one, sizes[one], path, text_key, parts, invalid_utf8)
            for one, path in files.items()
        ]
    if parts is not None:
        files = {one: path for one, path in files.items() if splits.chosen(parts, one)}
    groups: list[list[str]] = []
    room = 0
    for one in files:
        if room <= 0:
            groups.append([])
            room = GROUP
        groups[-1].append(one)
        room -= sizes[one]
    return [
        WholeFiles(
            group[0],
            sum(sizes[one] for one in group),
            tuple((one, files[one]) for one in group),
            invalid_utf8,
        )
        for group in groups
    ]


def _document(line: bytes, where: str, text_key: str, invalid_utf8: str) -> Document:
    content, invalid = text_of(line, f"line {where}", invalid_utf8)
    try:
        record = json.loads(content)
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
        document = Document(where if name is None else str(name), text, invalid=invalid)
        for part in (document.id, text):
            part.encode()  # a lone surrogate, which JSON can spell, is no text
        return document
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"line {where} is not a document ({line_of(error)}): repair it, or set data.text_key"
        ) from error
