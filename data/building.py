"""From a split's shards to its store: in parallel, and on from where a killed build stopped.

Chunks (data/chunks.py) collect in a hidden folder beside the store, which any number of builds
may fill together: each chunk appears whole, and its content depends on the documents alone. When
all are there they are joined to a store, which appears whole too.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data import cache, chunks, fingerprint, store, tasks, workers
from data.chunks import Recipe, Tools, Written
from data.documents import Progress, Shard
from data.examples import limits
from data.examples.chat import Files
from data.examples.rendering import Making
from data.filters import OFF, Duplicates, FilterConfig
from data.store import FILE_TOKENS, TokenStore
from data.tokenizer import Tokenizer
from data.waiting import steadily
from errors import UserError

_WORTH = 1 << 23  # of what is to be read, for each process; less is read in this one
_TOKENIZER, _CHAT = "tokenizer.json", "chat"
_OVER_LIMIT = "dropped: over the limit"


def build(
    path: Path,
    shards: Sequence[Shard],
    tokenizer: Tokenizer,
    about: Mapping[str, Any],
    progress: Progress = lambda what, done, total: None,
    processes: int = 0,
    filters: FilterConfig = OFF,
    overlaps: Path | None = None,
    making: Making | None = None,
    chat: Files | None = None,
) -> TokenStore:
    """Tokenizes the documents of `shards` into a store at `path`, and opens it.

    Memory grows by a byte a document, and by the index of duplicates where these are left out.
    What a killed build has done is not done again, and the store is the same to the byte.

    Args:
      about: recorded in the manifest beside what is counted here.
      progress: called every few seconds, from this thread.
      processes: at most; 0 is one for each core.
      filters, overlaps, making: see Recipe (data/chunks.py).
      chat: the chat template of `making`, where it needs one.

    Raises:
      UserError: there are no documents, one cannot be read, the tokenizer loses text, or the disk
        is full.
    """
    try:
        _build(path, shards, tokenizer, about, progress, processes, filters, overlaps, making, chat)
    except (FileNotFoundError, UserError):
        if not cache.is_there(path):
            raise
        # Another build of it has ended meanwhile, and taken the chunks away.
    return TokenStore(path)


def _build(
    path: Path,
    shards: Sequence[Shard],
    tokenizer: Tokenizer,
    about: Mapping[str, Any],
    progress: Progress,
    processes: int,
    filters: FilterConfig,
    overlaps: Path | None,
    making: Making | None,
    chat: Files | None,
) -> None:
    folder = cache.building_folder(path)
    what = f"tokenizing {about.get('split', '')}".rstrip()
    total = max(sum(shard.size for shard in shards), 1)
    with cache.full_disk_told(path.parent):
        cache.make_folder(folder)
        if making is not None and chat is not None:
            making = dataclasses.replace(making, chat=folder / _CHAT)
            cache.make_folder(folder / _CHAT)
            for name, content in chat.items():
                _save_whole(functools.partial(_write, content), folder / _CHAT / name)
        recipe = Recipe(folder, folder / _TOKENIZER, filters, overlaps, making)
        tools = chunks.Tools(recipe, tokenizer)  # says at once which package is missing
        _save_tokenizer(tokenizer, recipe.tokenizer)
        processes = min(processes or os.cpu_count() or 1, len(shards), max(total // _WORTH, 1))

        def told(read: dict[int, int]) -> None:
            progress(f"{what}: MB", sum(read.values()) >> 20, total >> 20)

        if total > _WORTH:
            for read in workers.run(recipe, shards, processes):
                told(read)
        else:
            _make_chunks(recipe, tools, shards, told)
    _join(path, folder, len(shards), tools, about, progress, making)
    shutil.rmtree(folder, ignore_errors=True)


def _save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    _save_whole(tokenizer.save, path)


def _save_whole(save: Callable[[Path], object], path: Path) -> None:
    """Saves a file whole or not at all; builds on several hosts may do so at the same time."""
    descriptor, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    os.close(descriptor)
    try:
        save(Path(partial))
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _make_chunks(
    recipe: Recipe,
    tools: Tools,
    shards: Sequence[Shard],
    progress: Callable[[dict[int, int]], None],
) -> None:
    """Makes all chunks in this process; `progress` is told what has been read of each shard."""
    read: dict[int, int] = {}
    for number, shard in enumerate(shards):
        writing = chunks.write(recipe, tools, number, shard)
        while True:
            tick = functools.partial(progress, read)
            now = steadily(functools.partial(next, writing, None), tick)
            if now is None:
                break
            read[number] = now
            progress(read)


def _chunks(folder: Path, shards: int) -> Iterator[Written]:
    """All chunks, in order, one at a time."""
    for shard in range(shards):
        last = False
        count = 0
        while not last:
            path = chunks.path_of(folder, shard, count)
            try:
                chunk = Written(path)
            except (FileNotFoundError, *chunks.DAMAGED) as error:
                raise chunks.discarded(path) from error
            with contextlib.closing(chunk):
                yield chunk
                last = chunk.last
            count += 1


def _join(
    path: Path,
    folder: Path,
    shards: int,
    tools: Tools,
    about: Mapping[str, Any],
    progress: Progress,
    making: Making | None,
) -> None:
    """Makes the store of all chunks."""
    tokenizer = tools.tokenizer
    kept, counts = _kept(folder, shards, tools.duplicates, progress)
    for chunk in _chunks(folder, shards):
        counts.update(chunk.counts)
    unit = 2 if making is not None and tasks.find(making.task).pairs else 1
    if making is not None and making.limit:
        counts[_OVER_LIMIT] += _limit(folder, shards, kept, unit, making.limit)
    n = n_tokens = 0
    for chunk, stays in zip(_chunks(folder, shards), kept, strict=True):
        n, n_tokens = n + int(stays.sum()), n_tokens + int(chunk.array("token")[stays].sum())
    if n == 0:
        where = ", ".join(f"{key} {about[key]!r}" for key in ("dataset", "split") if key in about)
        read = counts["documents read"]
        gone = "by filters" if making is None else _gone(counts)
        why = f"all {read:,} are left out {gone}" if read else "there are none"
        raise UserError(
            f"no documents to train on or evaluate ({where}): {why}; use a split that has some"
        )
    with cache.publish(path) as building:
        ends = {
            name: np.lib.format.open_memmap(
                building / f"{name}_offsets.npy", "w+", np.int64, (n + 1,)
            )
            for name in store.COLUMNS
        }
        for column in ends.values():
            column[0] = 0
        done = learned = 0
        with (
            _TokenFiles(building) as tokens,
            _BitFiles(building) as bits,
            (building / "ids.bin").open("wb") as ids,
        ):
            for chunk, stays in zip(_chunks(folder, shards), kept, strict=True):
                tokens.write(_of_some(chunk.array("tokens"), chunk.array("token"), stays))
                if making is not None:
                    some = _of_some(chunk.array("learned"), chunk.array("token"), stays)
                    bits.write(some)
                    learned += int(some.sum())
                ids.write(_of_some(chunk.array("ids"), chunk.array("id"), stays).tobytes())
                size = int(stays.sum())
                for name, column in ends.items():
                    end = column[done : done + size + 1]
                    end[1:] = end[0] + np.cumsum(chunk.array(name)[stays])
                done += size
                progress("writing the store: million tokens", tokens.count >> 20, n_tokens >> 20)
        n_bytes = int(ends["byte"][-1])
        for column in ends.values():
            column.flush()
        np.save(building / "token_bytes.npy", tokenizer.token_bytes)
        facts = {
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id,
            "vocab_size": tokenizer.vocab_size,
            "prefix_bytes": tokenizer.prefix_bytes,
            "dtype": chunks.token_dtype(tokenizer).name,
            "documents": n,
            "tokens": n_tokens,
            "text_bytes": n_bytes,
            "counts": {name: count for name, count in sorted(counts.items()) if count},
        }
        if making is not None:
            facts |= {"task": making.task, "learned": learned, "unit": unit}

        def digest(file: Path) -> str:
            tick = functools.partial(progress, f"checking {file.name}: file", 0, 1)
            return steadily(functools.partial(fingerprint.sha256, file), tick)

        manifest = store.manifest(building, about, facts, digest)
        (building / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _kept(
    folder: Path, shards: int, kinds: Sequence[Duplicates], progress: Progress
) -> tuple[list[np.ndarray], Counter[str]]:
    """Of each chunk, which documents are no copies of others; and how many were, by kind."""
    kept = [np.ones(chunk.array("token").size, np.bool_) for chunk in _chunks(folder, shards)]
    counts: Counter[str] = Counter()
    for number, kind in enumerate(kinds):
        signatures = (
            chunk.array(f"signature{number}")[stays]
            for chunk, stays in zip(_chunks(folder, shards), kept, strict=True)
            if stays.size
        )
        some = [stays for stays in kept if stays.size]
        found = zip(some, kind.find(signatures), strict=True)
        for done, (stays, copies) in enumerate(found):
            progress(f"looking for {kind.name}s: chunk", done + 1, len(some))
            stays[np.flatnonzero(stays)[copies]] = False
            counts[f"dropped: {kind.name}"] += int(copies.sum())
    return kept, counts


def _limit(folder: Path, shards: int, kept: Sequence[np.ndarray], unit: int, limit: int) -> int:
    """Takes from `kept` what is over the limit, and returns how many examples that is."""
    names: list[str] = []
    labels = []
    for chunk in _chunks(folder, shards):
        ends = np.cumsum(chunk.array("id"))[unit - 1 :: unit].tolist()
        text = chunk.array("ids").tobytes()
        sizes = chunk.array("id")[::unit].tolist()
        names += [text[end - size : end].decode() for end, size in zip(ends, sizes, strict=True)]
        labels.append(chunk.array("label")[::unit])
    stays = limits.chosen(names, np.concatenate(labels), limit)
    at = 0
    for some in kept:
        size = some.size // unit
        some &= np.repeat(stays[at : at + size], unit)
        at += size
    return int((~stays).sum())


def _gone(counts: Mapping[str, int]) -> str:
    """Why no example is left."""
    told = (f"{name.removeprefix('dropped: ')} {n:,}" for name, n in sorted(counts.items()) if n)
    return f"({', '.join(text for text in told if not text.startswith('documents read'))})"


def _of_some(values: np.ndarray, lengths: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """The values of those documents that stay, from the values of all."""
    return values if stays.all() else values[np.repeat(stays, lengths)]


class _TokenFiles:
    """Files of FILE_TOKENS tokens each, written one after the other.

    Attributes:
      count: of tokens so far.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._folder = folder
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_TokenFiles":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, tokens: np.ndarray) -> None:
        """Appends tokens, over as many files as they need."""
        while tokens.size:
            number, within = divmod(self.count, FILE_TOKENS)
            if within == 0:
                self.__exit__()
                self._file = (self._folder / store.tokens_file(number)).open("wb")
            assert self._file is not None
            some, tokens = np.split(tokens, [FILE_TOKENS - within])
            self._file.write(some.tobytes())
            self.count += some.size


class _BitFiles:
    """Files of a bit for each of FILE_TOKENS tokens, likewise."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._rest = np.zeros(0, np.bool_)  # of a byte that is not full
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_BitFiles":
        return self

    def __exit__(self, *error: object) -> None:
        if self._rest.size:
            self._append(self._rest)
        if self._file is not None:
            self._file.close()

    def write(self, bits: np.ndarray) -> None:
        """Appends bits, bool."""
        bits = np.concatenate([self._rest, bits])
        whole = bits.size // 8 * 8
        self._rest = bits[whole:]
        self._append(bits[:whole])

    def _append(self, bits: np.ndarray) -> None:
        while bits.size:
            number, within = divmod(self._count, FILE_TOKENS)
            if within == 0:
                if self._file is not None:
                    self._file.close()
                self._file = (self._folder / store.learned_file(number)).open("wb")
            assert self._file is not None
            some, bits = np.split(bits, [FILE_TOKENS - within])
            self._file.write(np.packbits(some, bitorder="little").tobytes())
            self._count += some.size
