"""A tokenizer from whatever a path holds."""

import json
from pathlib import Path
from typing import Any

from data.tokenizing import byte_level, gpt2, rank_file, sentence_piece, specials
from data.tokenizing.byte import FORMAT as BYTE_FORMAT
from data.tokenizing.byte import ByteTokenizer
from data.tokenizing.byte_level import ByteLevelTokenizer
from data.tokenizing.rank_file import RankFileTokenizer
from data.tokenizing.sentence_piece import SentencePieceTokenizer
from errors import UserError

AnyTokenizer = ByteTokenizer | ByteLevelTokenizer | SentencePieceTokenizer | RankFileTokenizer

_FORMS = (
    "a tokenizer.json, GPT-2's encoder.json with vocab.bpe, a SentencePiece .model or a tiktoken "
    "rank file"
)


def load(path: Path) -> AnyTokenizer:
    """Reads what `save` wrote, or what others wrote, told apart by what the file holds.

    - a byte-level `tokenizer.json` of the `tokenizers` library, with the BOS and EOS that the
      files beside it say (`specials.py`);
    - GPT-2's `encoder.json` and `vocab.bpe`, by either file;
    - a SentencePiece `.model`;
    - a rank file of tiktoken, PATH or PATH:NAME with NAME in `rank_file.ENCODINGS`;
    - a folder with one of these under its usual name.

    Raises:
      UserError: there is no such file, or it is not a tokenizer we can use.
    """
    path, encoding = _split_name(path)
    if path.is_dir():
        path = _in_folder(path)
    for pair in gpt2.PAIRS:
        if path.name in pair:
            return gpt2.load(path.parent, pair)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read a tokenizer at {path}: set data.tokenizer to 'bpe', 'unigram', 'byte' or "
            f"the path of {_FORMS}"
        ) from error
    if encoding is not None or rank_file.is_rank_file(content):
        return RankFileTokenizer(content, encoding, str(path))
    if content.lstrip()[:1] == b"{":
        return _from_json(content, path)
    if path.suffix == ".model":
        return SentencePieceTokenizer(content, str(path))
    raise UserError(f"{path} is not a tokenizer that Podium reads: give the path of {_FORMS}")


def _from_json(content: bytes, path: Path) -> AnyTokenizer:
    origin = str(path)
    try:
        text = content.decode()
        saved: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{origin} is not a tokenizer.json (it is no JSON, or damaged): give another"
        ) from error
    kind = saved.get("type")
    if kind == BYTE_FORMAT:
        return ByteTokenizer()
    if kind == sentence_piece.FORMAT:
        return sentence_piece.from_saved(saved, origin)
    if kind == rank_file.FORMAT:
        return rank_file.from_saved(saved, origin)
    if kind == byte_level.FORMAT:
        return byte_level.from_saved(saved, origin)
    return ByteLevelTokenizer(text, origin, specials.beside(path, saved))


def _split_name(path: Path) -> tuple[Path, str | None]:
    """PATH:NAME -> its two parts, where NAME is an encoding of rank files."""
    name, colon, encoding = path.name.rpartition(":")
    if colon and encoding in rank_file.ENCODINGS:
        return path.with_name(name), encoding
    return path, None


def _in_folder(folder: Path) -> Path:
    pairs = (name for pair in gpt2.PAIRS for name in pair[:1])
    for name in ("tokenizer.json", *pairs, "tokenizer.model"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} is a folder without a tokenizer: give the path of {_FORMS}")
