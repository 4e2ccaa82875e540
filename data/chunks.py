"""From one shard of documents to files of tokens, a piece at a time: what a process does.

A chunk is a file of what is left of about `CHUNK` characters of documents, tokenized. It appears
whole or not at all, and where it ends depends on the documents alone: so a build that was killed
goes on after the last chunk that is there, and ends with the same chunks.
"""

import json
import os
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data import filters
from data import tokenizer as tokenizers
from data.documents import Document, Shard
from data.examples.rendering import Making, Renderer, record_of
from data.filters.config import OFF, FilterConfig
from data.tokenizer import Tokenizer
from data.tokenizing.long import encode_documents, encode_long
from errors import UserError

CHUNK = 1 << 24  # characters of text
_BATCH = 1 << 20  # characters of text that are tokenized at a time
_DOCUMENTS = 1 << 10  # at most, likewise

DAMAGED = (EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
"""What the reading of a chunk raises that is not whole: it was not flushed when a machine died."""


@dataclass(frozen=True)
class Recipe:
    """What becomes of a document, for a process that is told so. It can be pickled.

    Attributes:
      folder: where chunks are written.
      tokenizer: the file that it is loaded from.
      filters: what is left out, or changed.
      overlaps: see filters.make.
      making: makes examples of records, where documents are no plain text.
    """

    folder: Path
    tokenizer: Path
    filters: FilterConfig = OFF
    overlaps: Path | None = None
    making: Making | None = None


class Tools:
    """What a recipe needs, loaded once in a process.

    Args:
      recipe: what is to be done.
      tokenizer: that of the recipe, where it is loaded already.
    """

    def __init__(self, recipe: Recipe, tokenizer: Tokenizer | None = None) -> None:
        self.tokenizer = tokenizer or tokenizers.load(recipe.tokenizer)
        self.filters = filters.make(recipe.filters, recipe.overlaps)
        self.duplicates = filters.make_duplicates(recipe.filters)
        self.renderer = Renderer(recipe.making, self.tokenizer) if recipe.making else None


@dataclass
class Chunk:
    """Some documents that follow each other in a shard, tokenized.

    Attributes:
      tokens: of the documents one after the other, each BOS ... EOS, in parts of any size.
      lengths, text_bytes, ids: of a document each.
      signatures: of a document each, for every kind of duplicates.
      learned: bool, as `tokens`; None of plain text.
      labels: of a document each, where not None.
      counts: what was seen, and what happened to it, by name.
      next: number in the shard of the document after the last.
      read: how much of the shard's size has been read.
      last: whether the shard ends here.
    """

    tokens: list[np.ndarray] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    text_bytes: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    signatures: list[list[bytes]] = field(default_factory=list)
    learned: list[np.ndarray] | None = None
    labels: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    next: int = 0
    read: int = 0
    last: bool = False


class Written:
    """A chunk on disk; its arrays are read when they are asked for.

    Attributes:
      counts, next, read, last: as of Chunk.
    """

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError, or one of DAMAGED."""
        self._path = path
        self._file = path.open("rb")
        try:
            self._arrays = np.load(self._file, allow_pickle=False)
            about = json.loads(self._arrays["about"].tobytes())
            self.counts: dict[str, int] = about["counts"]
            self.next: int = about["next"]
            self.read: int = about["read"]
            self.last: bool = about["last"]
        except BaseException:
            self._file.close()
            raise

    def array(self, name: str) -> np.ndarray:
        """ "tokens" (of all its documents), or "token", "byte" or "id": their lengths; "ids"; of
        examples also "learned", as the tokens, and "label".

        Raises:
          UserError: it is damaged; the chunk is deleted.
        """
        try:
            return self._arrays[name]
        except DAMAGED as error:
            raise discarded(self._path) from error

    def close(self) -> None:
        self._arrays.close()
        self._file.close()


def discarded(path: Path) -> UserError:
    """Deletes a damaged chunk, and says so: it is the next build's to make again."""
    what = "was damaged and is deleted" if path.exists() else "has gone"
    path.unlink(missing_ok=True)
    return UserError(f"{path} {what}: the same command makes it again")


def path_of(folder: Path, shard: int, chunk: int) -> Path:
    """Where a chunk is, written or not."""
    return folder / f"{shard:06d}-{chunk:06d}.npz"


def written(folder: Path, shard: int) -> tuple[int, Written | None]:
    """How many chunks of a shard are there, and the last of them."""
    count, last = 0, None
    while (path := path_of(folder, shard, count)).exists():
        try:
            found = Written(path)
        except DAMAGED:
            break
        if last is not None:
            last.close()
        last, count = found, count + 1
    return count, last


def write(recipe: Recipe, tools: Tools, number: int, shard: Shard) -> Iterator[int]:
    """Writes the chunks of a shard that are not there yet.

    Yields:
      every second or so, also in the course of a long document, how much of the shard's size has
      been read.

    Raises:
      UserError: a document cannot be read, or the tokenizer loses text of one.
    """
    count, last = written(recipe.folder, number)
    chunk = _empty(tools)
    if last is not None:
        last.close()
        chunk.next, chunk.read = last.next, last.read
        if last.last:
            yield shard.size
            return
    seen = 0  # characters, before filters: so much is not read again after a kill
    for batch, read in _batches(shard.documents(chunk.next)):
        seen += sum(map(_size, batch))
        for _ in _add(chunk, batch, tools):
            yield chunk.read
        chunk.read = read
        batch.clear()  # a document may be large
        if seen >= CHUNK:
            _save(chunk, path_of(recipe.folder, number, count))
            count, seen = count + 1, 0
            chunk = _empty(tools, chunk.next, read)
        yield read
    chunk.last = True
    _save(chunk, path_of(recipe.folder, number, count))
    yield shard.size


def _batches(documents: Iterator[tuple[Document, int]]) -> Iterator[tuple[list[Document], int]]:
    """Documents in lists of about `_BATCH` characters, with what has been read after each."""
    batch: list[Document] = []
    size = read = 0
    for document, read in documents:
        batch.append(document)
        size += _size(document)
        del document  # the batch alone has it: it may be large
        if size >= _BATCH or len(batch) == _DOCUMENTS:
            yield batch, read
            batch, size = [], 0
    if batch:
        yield batch, read


def _size(document: Document) -> int:
    """Characters of a document, as far as they matter for memory and time."""
    return len(document.text) or len(str(record_of(document)))


def _empty(tools: Tools, following: int = 0, read: int = 0) -> Chunk:
    learned: list[np.ndarray] | None = [] if tools.renderer else None
    signatures: list[list[bytes]] = [[] for _ in tools.duplicates]
    return Chunk(signatures=signatures, learned=learned, next=following, read=read)


def _filtered(
    batch: Sequence[Document], tools: Tools, counts: Counter[str]
) -> Generator[None, None, list[Document]]:
    """Returns what the filters leave of documents; yields after each."""
    kept = []
    for document in batch:
        yield
        left: Document | None = document
        for one in tools.filters:
            left = one(left, counts) if left is not None else None
        if left is not None:
            kept.append(left)
    return kept


def _add(chunk: Chunk, batch: Sequence[Document], tools: Tools) -> Iterator[None]:
    """Tokenizes documents into a chunk; yields now and then."""
    chunk.next += len(batch)
    chunk.counts["documents read"] += len(batch)
    chunk.counts["invalid bytes"] += sum(document.invalid for document in batch)
    if tools.renderer is not None:
        yield from _add_examples(chunk, batch, tools.renderer, token_dtype(tools.tokenizer))
        return
    tokenizer = tools.tokenizer
    batch = yield from _filtered(batch, tools, chunk.counts)
    for kind, signatures in zip(tools.duplicates, chunk.signatures, strict=True):
        for document in batch:
            signatures.append(kind.signature(document.text))
            yield
    dtype = token_dtype(tokenizer)
    bos, eos = np.array([[tokenizer.bos_id], [tokenizer.eos_id]], dtype)
    encoded = yield from _encode(batch, tokenizer, dtype)
    for document, ids in zip(batch, encoded, strict=True):
        text_bytes = _utf8_length(document.text)
        prefix = tokenizer.prefix_bytes if text_bytes else 0
        if sum(int(tokenizer.token_bytes[part].sum()) for part in ids) != text_bytes + prefix:
            raise UserError(
                f"the tokenizer loses text of document {document.id!r}: use a lossless "
                "byte-level tokenizer"
            )
        chunk.tokens += [bos, *ids, eos]
        chunk.lengths.append(2 + sum(part.size for part in ids))
        chunk.text_bytes.append(text_bytes)
        chunk.ids.append(document.id)


def _add_examples(
    chunk: Chunk, batch: Sequence[Document], renderer: Renderer, dtype: np.dtype[Any]
) -> Iterator[None]:
    """Makes examples of records, into a chunk; yields now and then."""
    assert chunk.learned is not None
    for unit in renderer.units(batch, chunk.counts):
        for ids, learned, text_bytes in unit.sequences:
            chunk.tokens.append(ids.astype(dtype))
            chunk.learned.append(learned)
            chunk.lengths.append(ids.size)
            chunk.text_bytes.append(text_bytes)
            chunk.ids.append(unit.name)
            chunk.labels.append(unit.label)
        yield


def _encode(
    batch: Sequence[Document], tokenizer: Tokenizer, dtype: np.dtype[Any]
) -> Generator[None, None, list[list[np.ndarray]]]:
    """Returns the ids of each document, in parts; yields now and then."""
    found: list[list[np.ndarray]] = [[] for _ in batch]
    short = [i for i, document in enumerate(batch) if len(document.text) <= _BATCH]
    ids = encode_documents(tokenizer, [batch[i].text for i in short])
    for i, some in zip(short, ids, strict=True):
        found[i].append(_stored(some, tokenizer, batch[i], dtype))
    for i, document in enumerate(batch):
        if len(document.text) > _BATCH:
            for some in encode_long(tokenizer, document.text):
                found[i].append(_stored(some, tokenizer, document, dtype))
                yield
    return found


def _stored(
    ids: np.ndarray, tokenizer: Tokenizer, document: Document, dtype: np.dtype[Any]
) -> np.ndarray:
    """Ids as they are stored."""
    if ids.size and ids.max() >= tokenizer.vocab_size:
        raise UserError(
            f"the tokenizer gives id {ids.max()} in document {document.id!r}, outside its "
            f"vocabulary of {tokenizer.vocab_size}: repair its file"
        )
    return ids.astype(dtype)


def _utf8_length(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(len(text[i : i + _BATCH].encode()) for i in range(0, len(text), _BATCH))


def token_dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    """How ids are stored."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)


def _save(chunk: Chunk, path: Path) -> None:
    """Writes a chunk, whole or not at all."""
    about = {
        "counts": dict(chunk.counts),
        "next": chunk.next,
        "read": chunk.read,
        "last": chunk.last,
    }
    ids = [name.encode() for name in chunk.ids]
    members = {
        "about": [np.frombuffer(json.dumps(about).encode(), np.uint8)],
        "tokens": chunk.tokens or [np.zeros(0, np.uint16)],
        "token": [np.array(chunk.lengths, np.int64)],
        "byte": [np.array(chunk.text_bytes, np.int64)],
        "id": [np.array([len(name) for name in ids], np.int64)],
        "ids": [np.frombuffer(b"".join(ids), np.uint8)],
    }
    for i, some in enumerate(chunk.signatures if ids else ()):
        table = np.frombuffer(b"".join(some), np.uint8)
        members[f"signature{i}"] = [table.reshape(len(ids), -1)]
    if chunk.learned is not None:
        members["learned"] = chunk.learned or [np.zeros(0, np.bool_)]
        members["label"] = [np.array(chunk.labels, np.int64)]
    descriptor, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for name, parts in members.items():
                _write_member(archive, name, parts)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _write_member(archive: zipfile.ZipFile, name: str, parts: Sequence[np.ndarray]) -> None:
    """An array of an .npz file, from parts that are never held joined."""
    first = parts[0]
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": (sum(len(part) for part in parts), *first.shape[1:]),
    }
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for part in parts:
            member.write(part.tobytes())
