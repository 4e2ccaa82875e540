"""The tokens of a split on disk: built once, memory-mapped, addressed by what determined them.

A store is a directory:

    tokens.bin         uint16 or uint32 [N]: the documents one after the other, each BOS ... EOS
    token_offsets.npy  int64 [n + 1]: document i is tokens[offsets[i]:offsets[i + 1]]
    byte_offsets.npy   int64 [n + 1]: likewise, in bytes of text
    id_offsets.npy     int64 [n + 1]: likewise, in ids.bin
    ids.bin            the documents' ids, UTF-8, one after the other
    token_bytes.npy    int32 [V]: bytes of text that each token id stands for
    manifest.json      counts, fingerprints, size and SHA-256 of every file above

Documents are in the order of a fixed permutation of the dataset's own, so that neighbours are
unrelated whatever order the dataset came in, and the order needs no memory.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data import cache, permute
from data.documents import Document
from data.tokenizer import Tokenizer
from data.waiting import steadily
from errors import UserError

STORE_VERSION = 1  # part of a store's address: raise it when the layout or the order changes
_ORDER_KEY = permute.derive_key(0x706F6469756D)  # any constant
_ENCODE_BATCH = 64  # documents per call of the tokenizer, which spreads them over threads
_READ_THREADS = 8
_VERIFIED_BYTES = 1 << 28  # files up to 256 MiB are checked in full whenever a store is opened
_FILES = (
    "tokens.bin",
    "token_offsets.npy",
    "byte_offsets.npy",
    "id_offsets.npy",
    "ids.bin",
    "token_bytes.npy",
)

Progress = Callable[[int, int], None]  # (documents done, documents in all)


class TokenStore:
    """A store, opened. Its arrays are memory maps, and threads may read them together.

    Attributes:
      tokens: uint16 or uint32 [N].
      token_offsets, byte_offsets: int64 [n_documents + 1].
      token_bytes: int32 [V].
      bos_id, eos_id, vocab_size: of its tokenizer.
      fingerprint: of the content; equal wherever and whenever the store was built.
      manifest: everything recorded at the build.
    """

    def __init__(self, path: Path) -> None:
        """Opens the store at `path`.

        Every file's size is checked, and the SHA-256 of files up to 256 MiB; `verify` checks all.

        Raises:
          UserError: a file is missing, truncated or damaged.
        """
        self.path = path
        try:
            self.manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
            sizes = {name: self.manifest["files"][name]["size"] for name in _FILES}
            self.bos_id: int = self.manifest["bos_id"]
            self.eos_id: int = self.manifest["eos_id"]
            self.vocab_size: int = self.manifest["vocab_size"]
            self.fingerprint: str = self.manifest["fingerprint"]
            dtype = np.dtype(self.manifest["dtype"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path / "manifest.json") from error
        for name, size in sizes.items():
            file = path / name
            if not file.is_file() or file.stat().st_size != size:
                raise _damaged(file)
            if size <= _VERIFIED_BYTES:
                self._verify(name)
        self.tokens: np.ndarray = np.memmap(path / "tokens.bin", dtype, mode="r").view(np.ndarray)
        self.token_offsets = _map(path / "token_offsets.npy")
        self.byte_offsets = _map(path / "byte_offsets.npy")
        self.token_bytes: np.ndarray = np.load(path / "token_bytes.npy")

    @property
    def n_documents(self) -> int:
        return self.token_offsets.size - 1

    @property
    def n_tokens(self) -> int:
        """All tokens, BOS and EOS of every document included."""
        return self.tokens.size

    @property
    def n_bytes(self) -> int:
        """Bytes of text."""
        return int(self.byte_offsets[-1])

    def document_id(self, index: int) -> str:
        """The name that document `index` of the store has in its dataset."""
        start, end = _map(self.path / "id_offsets.npy")[index : index + 2].tolist()
        with (self.path / "ids.bin").open("rb") as file:
            file.seek(start)
            return file.read(end - start).decode()

    def verify(self) -> None:
        """Checks the SHA-256 of every file.

        Raises:
          UserError: names the first file that is damaged.
        """
        for name in _FILES:
            self._verify(name)

    def _verify(self, name: str) -> None:
        if _sha256(self.path / name) != self.manifest["files"][name]["sha256"]:
            raise _damaged(self.path / name)


def address(source_fingerprint: str, split: str, text_key: str, tokenizer: Tokenizer) -> Path:
    """Where the store of a split is kept, built or not."""
    name = cache.key(
        source=source_fingerprint,
        split=split,
        text_key=text_key,
        tokenizer=tokenizer.fingerprint,
        version=STORE_VERSION,
    )
    return cache.root() / "stores" / name


def in_store_order(documents: Sequence[Document], index: int) -> Document:
    """Document `index` of the store, read from its dataset."""
    n = len(documents)
    return documents[int(permute.permute(np.array(index), n, _ORDER_KEY))]


def read_in_order(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """All documents in store order, in lists, read ahead by Grain's threads."""
    # Imports JAX, which takes seconds: only a build does.
    import grain

    dataset = grain.MapDataset.range(len(documents)).map(
        lambda index: in_store_order(documents, index)
    )
    options = grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=2 * _ENCODE_BATCH)
    yield from dataset.to_iter_dataset(options).batch(
        _ENCODE_BATCH, drop_remainder=False, batch_fn=list
    )


def build(
    path: Path,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    about: dict[str, Any],
    progress: Progress = lambda done, total: None,
) -> TokenStore:
    """Tokenizes `documents` into a store at `path` and opens it.

    Memory does not grow with the number of documents. The store appears whole or not at all.

    Args:
      about: recorded in the manifest beside what is counted here.
      progress: called every few seconds, from this thread.

    Raises:
      UserError: there are no documents, the tokenizer loses text, or the disk is full.
    """
    n = len(documents)
    if n == 0:
        where = ", ".join(f"{k} {v!r}" for k, v in about.items())
        raise UserError(
            f"there are no documents to train on or evaluate ({where}): use a split that has some"
        )
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    with cache.publish(path) as building:
        ends = {
            name: np.lib.format.open_memmap(
                building / f"{name}_offsets.npy", "w+", np.int64, (n + 1,)
            )
            for name in ("token", "byte", "id")
        }
        done = n_tokens = n_bytes = n_id_bytes = 0
        for column in ends.values():
            column[0] = 0
        with (
            (building / "tokens.bin").open("wb") as tokens,
            (building / "ids.bin").open("wb") as ids,
        ):
            for batch in read_in_order(documents):
                texts = [document["text"] for document in batch]
                encoded = steadily(
                    functools.partial(tokenizer.encode_batch, texts),
                    functools.partial(progress, done, n),
                )
                for document, text_ids in zip(batch, encoded, strict=True):
                    text_bytes = len(document["text"].encode())
                    row = np.array([tokenizer.bos_id, *text_ids, tokenizer.eos_id], dtype)
                    if tokenizer.token_bytes[row].sum() != text_bytes:
                        raise UserError(
                            f"the tokenizer loses text of document {document['id']!r}: use a "
                            "lossless byte-level tokenizer"
                        )
                    name = document["id"].encode()
                    tokens.write(row.tobytes())
                    ids.write(name)
                    done += 1
                    n_tokens += row.size
                    n_bytes += text_bytes
                    n_id_bytes += len(name)
                    ends["token"][done] = n_tokens
                    ends["byte"][done] = n_bytes
                    ends["id"][done] = n_id_bytes
                progress(done, n)
        for column in ends.values():
            column.flush()
        np.save(building / "token_bytes.npy", tokenizer.token_bytes)
        files: dict[str, dict[str, Any]] = {}
        for file in _FILES:
            built = building / file
            digest = steadily(
                functools.partial(_sha256, built), functools.partial(progress, done, n)
            )
            files[file] = {"size": built.stat().st_size, "sha256": digest}
        content = {name: str(entry["sha256"]) for name, entry in files.items()}
        manifest = {
            **about,
            "version": STORE_VERSION,
            "fingerprint": cache.key(
                **content, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, dtype=dtype.name
            ),
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id,
            "vocab_size": tokenizer.vocab_size,
            "dtype": dtype.name,
            "documents": n,
            "tokens": n_tokens,
            "text_bytes": n_bytes,
            "files": files,
        }
        (building / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return TokenStore(path)


def _map(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(file: Path) -> UserError:
    return UserError(
        f"{file} is missing or damaged: delete the directory {file.parent}, and it is built again"
    )
