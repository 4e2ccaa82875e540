"""Byte-level tokenizers of the `tokenizers` library, whatever their model is."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from data.tokenizing import lossless
from data.tokenizing.specials import NONE, Specials
from errors import UserError

FORMAT = "podium-byte-level"  # the "type" of the file that `save` writes where specials are given
BOS, EOS = "<|bos|>", "<|eos|>"
_KNOWN_BOS = (BOS, "<|begin_of_text|>", "<bos>", "<s>", "<|endoftext|>")
_KNOWN_EOS = (EOS, "<|end_of_text|>", "<eos>", "</s>", "<|endoftext|>")


class ByteLevelTokenizer:
    """A byte-level tokenizer of the `tokenizers` library.

    One that would bring text into Unicode's normal form C, as Qwen's does, gets text as it stands:
    what is in that form already, as nearly all text is, has the same ids, and nothing is lost.

    Args:
      serialized: the content of a `tokenizer.json`.
      origin: where it came from, for messages.
      specials: BOS and EOS; what is not given is one that we know.

    Raises:
      UserError: it is no tokenizer, has no BOS or EOS that we know, or loses text.
    """

    prefix_bytes = 0

    def __init__(self, serialized: str, origin: str, specials: Specials = NONE) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(_as_it_stands(serialized))
        except Exception as error:
            raise UserError(
                f"{origin} is not a tokenizer.json that `tokenizers` {tokenizers.__version__} "
                "reads: give the path of one"
            ) from error
        self._tokenizer.encode_special_tokens = True  # text is text, whatever it spells
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.serialized = serialized
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        added = self._tokenizer.get_added_tokens_decoder()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.bos_id = _special(vocabulary, (specials.bos, *_KNOWN_BOS), "BOS", origin)
        self.eos_id = _special(vocabulary, (specials.eos, *_KNOWN_EOS), "EOS", origin)
        self._saved = serialized
        if (self.bos_id, self.eos_id) != tuple(
            next((vocabulary[one] for one in known if one in vocabulary), None)
            for known in (_KNOWN_BOS, _KNOWN_EOS)
        ):
            given = {"bos": specials.bos, "eos": specials.eos}
            head: dict[str, Any] = {"type": FORMAT, "version": 1}
            self._saved = json.dumps(head | given | {"tokenizer": serialized}, ensure_ascii=False)
        self.fingerprint = hashlib.sha256(self._saved.encode()).hexdigest()[:32]
        special_ids = {i for i, token in added.items() if token.special} | {
            self.bos_id,
            self.eos_id,
        }
        byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        self._tokens = [b""] * self.vocab_size
        try:
            for spelling, i in vocabulary.items():
                if i in added and i not in special_ids:
                    self._tokens[i] = spelling.encode()
                elif i not in special_ids:
                    self._tokens[i] = bytes(byte_of[c] for c in spelling)
        except KeyError as error:
            raise UserError(
                f"{origin} is not byte-level: give the path of one that is, or of the "
                "SentencePiece .model that it was made from"
            ) from error
        self.special_ids = frozenset(i for i, token in enumerate(self._tokens) if not token)
        self.token_bytes = np.array([len(token) for token in self._tokens], np.int32)
        # Added tokens can take the white space around them: each is tried.
        words = [f" {token.content} " for i, token in added.items() if i not in special_ids]
        lossless.check(self.encode_batch, self._tokens, "", origin, words)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def encode_inner(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_batch(texts)

    def token(self, token_id: int) -> bytes:
        return self._tokens[token_id] if token_id < self.vocab_size else b""

    def spelling(self, token_id: int) -> str:
        """How a tokenizer.json writes an id."""
        return str(self._tokenizer.id_to_token(token_id))

    def save(self, path: Path) -> None:
        path.write_text(self._saved, encoding="utf-8")


def from_saved(saved: dict[str, Any], origin: str) -> ByteLevelTokenizer:
    """From the content of the file that `save` wrote.

    Raises:
      UserError: it is damaged; other errors as ByteLevelTokenizer.
    """
    try:
        serialized, specials = saved["tokenizer"], Specials(saved["bos"], saved["eos"])
    except KeyError as error:
        raise UserError(f"{origin} is damaged: copy it again from where it came") from error
    return ByteLevelTokenizer(serialized, origin, specials)


def _as_it_stands(serialized: str) -> str:
    """A tokenizer.json without normal form C; others change more than how a character is spelled,
    and are refused with all that loses text.
    """
    content = json.loads(serialized)
    normalizer = content.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    if [step.get("type") for step in steps] != ["NFC"]:
        return serialized
    return json.dumps(content | {"normalizer": None}, ensure_ascii=False)


def _special(vocabulary: dict[str, int], known: Sequence[str], role: str, origin: str) -> int:
    for spelling in known:
        if spelling in vocabulary:
            return vocabulary[spelling]
    listed = ", ".join(filter(None, known))
    raise UserError(f"{origin} has no {role} that Podium knows: it knows {listed}")


def byte_characters() -> list[str]:
    """The character that byte-level tokenizers write for each byte, by byte (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]
