"""SentencePiece models (Kudo & Richardson, 2018) that lose no text."""

import base64
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.tokenizing import lossless
from errors import UserError

FORMAT = "podium-sentencepiece"  # the "type" of the file that `save` writes
_SPACE = "\u2581"  # what the library writes for a space


class SentencePieceTokenizer:
    """A SentencePiece model; its ids are the library's own.

    With one exception: the library reads U+2581 as a space, which would lose text, so here it
    becomes its three bytes.

    Args:
      model: the content of a `.model` file.
      origin: where it came from, for messages.

    Raises:
      UserError: it is not such a model, it has no BOS or EOS, or it loses text.
    """

    def __init__(self, model: bytes, origin: str) -> None:
        library, proto = _parse(model, origin)
        _refuse_losses(proto, origin)
        self.model = model
        # The prefix is put by us, so that text from inside a document can go without it.
        self._prefix = " " if proto.normalizer_spec.add_dummy_prefix else ""
        self.prefix_bytes = len(self._prefix)
        proto.normalizer_spec.add_dummy_prefix = False
        self._library = library.SentencePieceProcessor(model_proto=proto.SerializeToString())
        self.fingerprint = hashlib.sha256(b"sentencepiece-1\0" + model).hexdigest()[:32]
        self.vocab_size = len(proto.pieces)
        self.bos_id, self.eos_id = self._library.bos_id(), self._library.eos_id()
        for role, i in (("BOS", self.bos_id), ("EOS", self.eos_id)):
            if i < 0:
                raise UserError(f"{origin} has no {role}: train it with one (bos_id, eos_id >= 0)")
        kinds = type(proto.pieces[0])
        of_byte = {p.piece: i for i, p in enumerate(proto.pieces) if p.type == kinds.BYTE}
        byte_ids = [of_byte.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
        if -1 in byte_ids:
            raise UserError(
                f"{origin} has no byte fallback, so it loses characters that it does not know: "
                "give a model trained with byte_fallback"
            )
        self._tokens = [
            piece.piece.replace(_SPACE, " ").encode()
            if piece.type in (kinds.NORMAL, kinds.USER_DEFINED)
            else b""
            for piece in proto.pieces
        ]
        for byte, i in enumerate(byte_ids):
            self._tokens[i] = bytes([byte])
        self._space_ids = np.array([byte_ids[byte] for byte in _SPACE.encode()], np.uint32)
        self.special_ids = frozenset(i for i, token in enumerate(self._tokens) if not token)
        self.token_bytes = np.array([len(token) for token in self._tokens], np.int32)
        lossless.check(self.encode_batch, self._tokens, self._prefix, origin)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        # The library gives no ids, and no prefix, to an empty text.
        return self.encode_inner([self._prefix + text if text else "" for text in texts])

    def encode_inner(self, texts: Sequence[str]) -> list[np.ndarray]:
        split = [text.split(_SPACE) for text in texts]
        encoded = iter(self._library.encode(list(itertools.chain.from_iterable(split))))
        return [self._join(list(itertools.islice(encoded, len(parts)))) for parts in split]

    def _join(self, parts: list[list[int]]) -> np.ndarray:
        """The ids of a text from those of its parts between U+2581."""
        arrays = [np.array(part, np.uint32) for part in parts]
        return functools.reduce(lambda a, b: np.concatenate([a, self._space_ids, b]), arrays)

    def token(self, token_id: int) -> bytes:
        return self._tokens[token_id] if token_id < self.vocab_size else b""

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self.model, "the tokenizer")

    def save(self, path: Path) -> None:
        model = base64.b64encode(self.model).decode()
        path.write_text(json.dumps({"type": FORMAT, "version": 1, "model": model}) + "\n")


def from_saved(saved: dict[str, Any], origin: str) -> SentencePieceTokenizer:
    """From the content of the file that `save` wrote.

    Raises:
      UserError: it is damaged; other errors as SentencePieceTokenizer.
    """
    try:
        model = base64.b64decode(saved["model"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{origin} is damaged: copy it again from where it came") from error
    return SentencePieceTokenizer(model, origin)


def _parse(model: bytes, origin: str) -> tuple[Any, Any]:
    """The library, and the model as a protocol buffer."""
    try:
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise UserError(
            f"{origin} needs the package sentencepiece: `make setup TOKENIZERS=1`"
        ) from error
    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
        if not proto.pieces:
            raise ValueError("no pieces")
        sentencepiece.SentencePieceProcessor(model_proto=model)
    except Exception as error:
        raise UserError(
            f"{origin} is not a SentencePiece model that the package reads: give another"
        ) from error
    return sentencepiece, proto


def _refuse_losses(proto: Any, origin: str) -> None:
    """Raises UserError for a model that changes text before it reads it."""
    normalizer = proto.normalizer_spec
    if normalizer.precompiled_charsmap:
        reason = f"its normalizer {normalizer.name!r} changes characters"
        remedy = "normalization_rule_name=identity"
    elif normalizer.remove_extra_whitespaces:
        reason, remedy = "it drops white space", "remove_extra_whitespaces=false"
    elif not normalizer.escape_whitespaces:
        reason, remedy = "it does not mark spaces", "escape_whitespaces=true"
    elif proto.trainer_spec.treat_whitespace_as_suffix and normalizer.add_dummy_prefix:
        reason, remedy = "it ends every text with a space", "add_dummy_prefix=false"
    else:
        return
    raise UserError(f"{origin} loses text ({reason}): give a model trained with {remedy}")
