"""Files by pattern: "files:/data/notes/**/*.md", "files:gs://bucket/books/*.jsonl.gz".

What kinds of files there are is in data/sources/formats.py. A document that is a whole file is
named by its path below the folder where the pattern's wildcards begin; another by its "id" where
it has one, else by file and line.

Splits are "train" and "validation", by a hash of the document's name, and parts of them
("train[:10%]", data/sources/splits.py); or patterns that choose among the files
("train-*.jsonl.gz").
"""

import fnmatch
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data import cache, fingerprint
from data.documents import NO_SPLIT, Document, Progress, Shard, Source, Wanted
from data.sources import formats, pieces, splits, storage
from data.sources.pieces import Piece
from data.sources.records import Maker
from data.sources.splits import Part
from data.sources.storage import File
from errors import UserError

VERSION = 3  # part of the fingerprint: raise it when names, texts, order or splits change
VALIDATION_ONE_IN = 20  # documents
_LISTED = 8  # files named in a message
_OWN_SPLITS = "; or let data.train_split and data.eval_split be patterns of file names"
_PERCENTS = re.compile(r"\[[^\]]*%[^\]]*\]")


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the files that the pattern `name` matches."""
    where = f"data.source 'files:{name}'"
    found = storage.match(name, where)
    _check_formats(where, found)
    _check_splits(where, found, wanted.train_split, wanted.eval_split)
    content = cache.key(files=_content(found, progress), version=VERSION)
    shards = functools.partial(_shards, where, tuple(found), Maker.of(wanted))
    count = "1 file" if len(found) == 1 else f"{len(found):,} files"
    return Source(f"files:{name} ({count})", content, shards)


@dataclass(frozen=True)
class FileShard:
    """Files, or a piece of one, in order.

    Attributes:
      parts: only documents of these are kept; all of them if it is empty.
    """

    pieces: tuple[Piece, ...]
    maker: Maker
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        more = len(self.pieces) - 1
        return self.pieces[0].name + (f" and {more:,} more" if more else "")

    @property
    def size(self) -> int:
        """In bytes, as they are stored."""
        return sum(piece.size for piece in self.pieces)

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        """See `Shard`."""
        # Only where every document of one file is kept are those before `start` known unread.
        passed = start if len(self.pieces) == 1 and not self.parts else 0
        left = start - passed
        before = 0
        for piece in self.pieces:
            for document, read in _read(piece, self.maker, passed):
                if self.parts and not is_in(document.id, self.parts):
                    continue
                if left:
                    left -= 1
                    continue
                yield document, before + read
            before += piece.size


def is_in(name: str, parts: Sequence[Part]) -> bool:
    """Whether the document `name` is in one of the parts of "train" and "validation"."""
    place = splits.hash_of(name)
    split = "validation" if place % VALIDATION_ONE_IN == 0 else "train"
    return any(part.split == split and part.low <= place < part.high for part in parts)


def whole_files(files: Sequence[File], maker: Maker) -> list[Shard]:
    """Shards of files that are a document each, in their order."""
    return [FileShard(group, maker) for group in pieces.grouped([Piece(file) for file in files])]


def _read(piece: Piece, maker: Maker, start: int) -> Iterator[tuple[Document, int]]:
    last = ""
    try:
        for document, read in _row(piece.file).read(piece, maker, start):
            last = document.id
            yield document, read
            del document  # it may be large
    except UserError:
        raise
    except piece.file.failures as error:
        raise storage.unreadable(piece.file, error, last) from error


def _check_formats(where: str, files: Sequence[File]) -> None:
    kinds: dict[bool, str] = {}
    for file in files:
        row = formats.of(file.name)
        if row is None:
            raise UserError(
                f"{where} matches {file.name}: use a pattern of {', '.join(formats.ENDINGS)} files"
                " (but for .parquet also with .gz, .xz or .zst after it)"
            )
        kinds[row.is_whole] = file.name
    if len(kinds) > 1:
        raise UserError(
            f"{where} matches {kinds[True]} and {kinds[False]}: documents are either whole files "
            "or records in them; use a pattern of one kind"
        )


def _content(files: Sequence[File], progress: Progress) -> str:
    if files[0].is_remote:
        return fingerprint.of_listing((f.name, f.size, f.mark) for f in files)
    return fingerprint.of_files({file.name: Path(file.path) for file in files}, progress)


def _is_pattern(split: str) -> bool:
    # No split expression has these marks, but for the point in "train[:0.5%]".
    return any(mark in _PERCENTS.sub("", split) for mark in ".*?/")


def _chosen(files: Sequence[File], split: str) -> list[File]:
    """The files whose whole name matches; unlike in the source's pattern, `*` also matches "/"."""
    return [file for file in files if fnmatch.fnmatchcase(file.name, split)]


def _check_splits(where: str, files: Sequence[File], train: str, evaluation: str) -> None:
    """Refuses to train on what is evaluated on."""
    if evaluation == NO_SPLIT:
        return
    if _is_pattern(train) != _is_pattern(evaluation):
        raise UserError(
            f"data.train_split={train!r} and data.eval_split={evaluation!r} of {where}: give "
            "patterns of file names for both or for neither"
        )
    if _is_pattern(train):
        both = _chosen(_chosen(files, train), evaluation)
        if both:
            raise UserError(
                f"data.train_split={train!r} and data.eval_split={evaluation!r} both match "
                f"{both[0].name}: make them apart"
            )
    else:
        splits.check_apart(train, evaluation, where)


def _shards(where: str, files: Sequence[File], maker: Maker, split: str) -> list[Shard]:
    if _is_pattern(split):
        return _of_files(_matching(where, files, split), maker, ())
    parts = _parts(where, split)
    if not _row(files[0]).is_whole:
        return _of_files(files, maker, parts)
    chosen = [file for file in files if not parts or is_in(file.name, parts)]
    if not chosen:
        raise UserError(
            f"{where} has no documents for split {split!r}: none of its {len(files):,} files falls "
            f"into it; match more files{_OWN_SPLITS}"
        )
    return whole_files(chosen, maker)


def _of_files(files: Sequence[File], maker: Maker, parts: tuple[Part, ...]) -> list[Shard]:
    firsts: dict[Callable[..., object], File] = {}  # of each format: the others are to be like it
    found = []
    for file in files:
        row = _row(file)
        if row.is_cut and file.name.endswith(row.endings):
            found.extend(pieces.cut(file))
        else:
            found.append(Piece(file, like=firsts.setdefault(row.read, file)))
    return [FileShard(group, maker, parts) for group in pieces.grouped(found)]


def _matching(where: str, files: Sequence[File], split: str) -> list[File]:
    chosen = _chosen(files, split)
    if not chosen:
        names = ", ".join(file.name for file in files[:_LISTED])
        raise UserError(
            f"no file of {where} matches split {split!r}: there are {names}"
            f"{' …' if len(files) > _LISTED else ''}"
        )
    return chosen


def _parts(where: str, split: str) -> tuple[Part, ...]:
    """The parts of a split; none of them if that is every document."""
    if split == "all":
        return ()
    parts = splits.parse(split, ("train", "validation"), where, _OWN_SPLITS)
    if {part.split for part in parts if part.is_whole} == {"train", "validation"}:
        return ()
    return tuple(parts)


def _row(file: File) -> formats.Format:
    row = formats.of(file.name)
    assert row is not None  # _check_formats
    return row
