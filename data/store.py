"""The tokens of a split on disk: built once, memory-mapped, addressed by what determined them.

A store is a directory:

    tokens-00000.bin   uint16 or uint32: the documents one after the other, each BOS ... EOS; a
                       file has 2^28 of them, and the last one the rest
    token_offsets.npy  int64 [n + 1]: document i is tokens[offsets[i]:offsets[i + 1]]
    byte_offsets.npy   int64 [n + 1]: likewise, in bytes of text
    id_offsets.npy     int64 [n + 1]: likewise, in ids.bin
    ids.bin            the documents' ids, UTF-8, one after the other
    token_bytes.npy    int32 [V]: bytes of text that each token id stands for
    learned-00000.bin  of examples alone, whose documents are what a task makes: a bit for each of
                       the 2^28 tokens of tokens-00000.bin, the lowest of a byte first; 1 where the
                       token is to be predicted. Of plain text all but BOS are
    manifest.json      counts, fingerprints, size and SHA-256 of every file above

Documents are in the order of their source. data/building.py makes stores.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data import cache, checksums

VERSION = 2  # part of a store's address: raise it when the layout or the order changes
FILE_TOKENS = 1 << 28
COLUMNS = ("token", "byte", "id")  # whose offsets are kept


def tokens_file(number: int) -> str:
    """The name of a file of tokens."""
    return f"tokens-{number:05d}.bin"


def learned_file(number: int) -> str:
    """The name of a file of bits, of the tokens in the file of this number."""
    return f"learned-{number:05d}.bin"


class TokenStore:
    """A store, opened. Its arrays are memory maps, and threads may read them together.

    Attributes:
      token_offsets, byte_offsets: int64 [n_documents + 1].
      token_bytes: int32 [V].
      bos_id, eos_id, vocab_size, prefix_bytes: of its tokenizer.
      unit: how many documents that follow each other lie in a row together: 2 in a store of
        pairs, of which each begins with the better answer; else 1.
      is_examples: whether its documents are examples, of which some tokens are learned.
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
            self._files = checksums.well_formed(self.manifest["files"])
            self.bos_id: int = self.manifest["bos_id"]
            self.eos_id: int = self.manifest["eos_id"]
            self.vocab_size: int = self.manifest["vocab_size"]
            self.prefix_bytes: int = self.manifest["prefix_bytes"]
            self.fingerprint: str = self.manifest["fingerprint"]
            self.n_tokens: int = self.manifest["tokens"]
            self.unit: int = self.manifest.get("unit", 1)
            dtype = np.dtype(self.manifest["dtype"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise checksums.damaged(path / "manifest.json") from error
        checksums.check(path, self._files)
        self._tokens = self._mapped("tokens-", dtype)
        self._learned = self._mapped("learned-", np.dtype(np.uint8))
        self.is_examples = bool(self._learned)
        self.token_offsets = _map(path / "token_offsets.npy")
        self.byte_offsets = _map(path / "byte_offsets.npy")
        self.token_bytes: np.ndarray = np.load(path / "token_bytes.npy")

    @property
    def n_documents(self) -> int:
        return self.token_offsets.size - 1

    @property
    def n_bytes(self) -> int:
        """Bytes of text."""
        return int(self.byte_offsets[-1])

    @property
    def n_learned(self) -> int:
        """Tokens that are to be predicted."""
        return int(self.manifest.get("learned", self.n_tokens - self.n_documents))

    def learned(self, start: int, stop: int) -> np.ndarray:
        """Whether each of the tokens [start, stop) of examples is to be predicted: bool."""
        first, last = start // FILE_TOKENS, (stop - 1) // FILE_TOKENS
        parts = []
        for n in range(first, last + 1):
            low = max(start - n * FILE_TOKENS, 0)
            high = min(stop - n * FILE_TOKENS, FILE_TOKENS)
            some = self._learned[n][low // 8 : -(-high // 8)]
            bits = np.unpackbits(some, bitorder="little")
            parts.append(bits[low % 8 : low % 8 + high - low])
        return np.concatenate(parts or [np.zeros(0, np.uint8)]).view(np.bool_)

    def _mapped(self, kind: str, dtype: np.dtype[Any]) -> list[np.ndarray]:
        return [
            np.memmap(self.path / name, dtype, mode="r").view(np.ndarray)
            for name in sorted(self._files)
            if name.startswith(kind)
        ]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop), BOS and EOS of every document included: uint16 or uint32."""
        first, last = start // FILE_TOKENS, (stop - 1) // FILE_TOKENS
        if first == last:
            base = first * FILE_TOKENS
            return self._tokens[first][start - base : stop - base]
        parts = [
            self._tokens[n][max(start - n * FILE_TOKENS, 0) : stop - n * FILE_TOKENS]
            for n in range(first, last + 1)
        ]
        return np.concatenate(parts) if parts else self._tokens[0][:0]

    def document_id(self, index: int) -> str:
        """The name that document `index` of the store has in its source."""
        start, end = _map(self.path / "id_offsets.npy")[index : index + 2].tolist()
        with (self.path / "ids.bin").open("rb") as file:
            file.seek(start)
            return file.read(end - start).decode()

    def find(self, name: str) -> list[int]:
        """The documents whose id is `name`. Reads all ids."""
        offsets = _map(self.path / "id_offsets.npy")
        wanted = name.encode()
        near = np.flatnonzero(np.diff(offsets) == len(wanted)).tolist()
        with (self.path / "ids.bin").open("rb") as file:
            ids = file.read()
        return [i for i in near if ids[offsets[i] : offsets[i + 1]] == wanted]

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Checks the SHA-256 of every file.

        Args:
          progress: called before each file with the files done and in all.

        Raises:
          UserError: names the first file that is damaged.
        """
        checksums.check_all(self.path, self._files, progress)


def address(**parts: str) -> Path:
    """Where the store is kept, built or not, that `parts` determine.

    Args:
      parts: source, split, text_key, tokenizer, and all else that changes its content.
    """
    return cache.root() / "stores" / cache.key(**parts, version=VERSION)


def manifest(
    folder: Path, about: Mapping[str, Any], facts: Mapping[str, Any], read: Callable[[Path], str]
) -> dict[str, Any]:
    """The manifest of the files in `folder`.

    Args:
      about: what the store is of, for people.
      facts: what it is; with what a TokenStore reads of it.
      read: the SHA-256 of a file.
    """
    files = checksums.of(folder, read)
    content = {name: str(entry["sha256"]) for name, entry in files.items()}
    known = ("bos_id", "eos_id", "prefix_bytes", "dtype", "unit")
    identity = {name: facts[name] for name in known if name in facts}
    return {
        **about,
        "version": VERSION,
        "fingerprint": cache.key(**content, **identity),
        **facts,
        "files": files,
    }


def _map(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:  # it is large, so its content was not checked
        raise checksums.damaged(path) from error
