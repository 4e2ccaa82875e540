"""Text files by pattern: "files:/data/notes/**/*.md", "files:gs://bucket/books/*.jsonl.gz".

A .txt, .md or .py file is one document, named by its path below the folder where the pattern's
wildcards begin. Files of records (JSON lines, Parquet, ArrayRecord; see formats.py) have many: the
text of each is the value of data.text_key, its name the value of "id" where it has one, else the
file's name and the record's number.

Splits are "train" and "validation", by a hash of the document's name, and parts of them by percent
("train[:10%]"); or patterns that choose among the files ("train-*.jsonl.gz").
"""

import fnmatch
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data import cache
from data.documents import NO_SPLIT, Document, Progress, Shard, Source, Wanted
from data.sources import compression, fingerprint, formats, pieces, splits, storage
from data.sources.pieces import Piece
from data.sources.records import Maker
from data.sources.splits import Part
from data.sources.storage import File
from errors import UserError

VERSION = 2  # part of the fingerprint: raise it when names, order or splits change
VALIDATION_ONE_IN = 20  # documents
_SPLITS = ("train", "validation")
_LISTED = 8  # files named in a message
_OWN_SPLITS = "; or let data.train_split and data.eval_split be patterns of file names"


def find(name: str, wanted: Wanted, progress: Progress) -> Source:
    """Finds the files that the pattern `name` matches."""
    where = f"data.source 'files:{name}'"
    found = storage.match(name, where)
    _check_formats(found, where)
    _check_splits(found, where, wanted.train_split, wanted.eval_split)
    content = cache.key(files=fingerprint.of_files(found, progress), version=VERSION)
    shards = functools.partial(_shards, where, found, Maker.of(wanted))
    return Source(f"files:{name} ({len(found):,} files)", content, shards)


@dataclass(frozen=True)
class Files:
    """Files, or pieces of files, that one process reads.

    Attributes:
      pieces: in the order of the documents.
      maker: makes these.
      parts: of the documents, those to keep; None is all.
    """

    pieces: tuple[Piece, ...]
    maker: Maker
    parts: tuple[Part, ...] | None = None

    @property
    def name(self) -> str:
        more = f" and {len(self.pieces) - 1} more" if len(self.pieces) > 1 else ""
        return f"{self.pieces[0].name}{more}"

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        # Only a format knows how to skip quickly, and what is kept is known only when it is read.
        skipped = start if len(self.pieces) == 1 and self.parts is None else 0
        yield from itertools.islice(self._read(skipped), start - skipped, None)

    def _read(self, start: int) -> Iterator[tuple[Document, int]]:
        before = 0
        for piece in self.pieces:
            form = formats.of(piece.file.name)
            assert form is not None
            last = ""
            try:
                for document, read in form.read(piece, self.maker, start):
                    last = document.id
                    if self.parts is None or is_chosen(document.id, self.parts):
                        yield document, before + read
            except UserError:
                raise
            except piece.file.failures as error:
                raise storage.unreadable(piece.file, error, last) from error
            before += piece.size


def is_chosen(name: str, parts: Sequence[Part]) -> bool:
    """Whether a document is in one of the parts, its split being by the hash of its name."""
    held_back = splits.hash_of(name) % VALIDATION_ONE_IN == 0
    here = _SPLITS[held_back]
    return any(part.split == here and part.holds(name) for part in parts)


def _check_formats(found: Sequence[File], where: str) -> None:
    kinds: dict[bool, str] = {}
    for file in found:
        form = formats.of(file.name)
        if form is None:
            raise UserError(
                f"{where} matches {file.name}: use a pattern of {', '.join(formats.ENDINGS)} "
                f"files, or of such with {', '.join(compression.COMPRESSIONS)} after it"
            )
        kinds.setdefault(form.is_whole, file.name)
    if len(kinds) > 1:
        raise UserError(
            f"{where} matches {kinds[True]} and {kinds[False]}: documents are either whole files "
            "or records; use a pattern of one kind"
        )


def _is_pattern(split: str) -> bool:
    bare = split.replace("%", "").replace("[:", "").replace(":]", "")
    return any(mark in bare for mark in ".*?/") and "%" not in split


def _chosen(files: Sequence[File], split: str) -> list[File]:
    """The files whose whole name matches; unlike in the source's pattern, `*` also matches "/"."""
    return [file for file in files if fnmatch.fnmatchcase(file.name, split)]


def _check_splits(files: Sequence[File], where: str, train: str, evaluation: str) -> None:
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


def _shards(where: str, files: Sequence[File], maker: Maker, split: str) -> Sequence[Shard]:
    parts: tuple[Part, ...] | None = None
    if _is_pattern(split):
        chosen = _chosen(files, split)
        if not chosen:
            there = ", ".join(file.name for file in files[:_LISTED])
            raise UserError(
                f"no file of {where} matches split {split!r}: there are {there}"
                f"{' …' if len(files) > _LISTED else ''}"
            )
    else:
        parts = tuple(splits.parse(split, _SPLITS, where, _OWN_SPLITS))
        chosen = list(files)
        if _format(files[0]).is_whole:
            chosen = [file for file in files if is_chosen(file.name, parts)]
            parts = None
    first: dict[formats.Format, File] = {}
    all_pieces: list[Piece] = []
    for file in chosen:
        form = _format(file)
        like = first.setdefault(form, file)
        cuttable = form.is_cut and not compression.ending_of(file.name)
        some = pieces.cut(file) if cuttable else [Piece(file)]
        all_pieces += [Piece(one.file, one.begin, one.end, like) for one in some]
    return [Files(group, maker, parts) for group in pieces.grouped(all_pieces)]


def _format(file: File) -> formats.Format:
    form = formats.of(file.name)
    assert form is not None
    return form
