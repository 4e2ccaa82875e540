"""The tokenizer that needs no vocabulary: bytes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FORMAT = "podium-bytes"  # the "type" of the file that `save` writes


class ByteTokenizer:
    """One id a byte, then BOS and EOS: V = 258."""

    vocab_size = 258
    bos_id = 256
    eos_id = 257
    special_ids = frozenset({256, 257})
    prefix_bytes = 0
    fingerprint = "bytes-1"

    def __init__(self) -> None:
        self.token_bytes = np.array([1] * 256 + [0, 0], np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint32) for text in texts]

    def encode_inner(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_batch(texts)

    def token(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"type": FORMAT, "version": 1}) + "\n")
