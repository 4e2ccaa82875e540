"""GPT-2's pair of files, `encoder.json` (ids) and `vocab.bpe` (merges), as one `tokenizer.json`."""

import json
from pathlib import Path

from data.tokenizing.byte_level import ByteLevelTokenizer
from errors import UserError

# OpenAI's names and Hugging Face's.
PAIRS = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
_END = "<|endoftext|>"  # begins and ends documents


def load(folder: Path, pair: tuple[str, str]) -> ByteLevelTokenizer:
    """Reads the pair of files named `pair` in `folder`.

    Raises:
      UserError: a file is missing or is not of this form; other errors as ByteLevelTokenizer.
    """
    ids, merges = (_read(folder, name, pair) for name in pair)
    try:
        vocabulary = json.loads(ids)
        added = {"id": vocabulary[_END], "content": _END, "special": True, "normalized": False}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / pair[0]} is not a vocabulary with {_END}: give the folder of GPT-2's "
            "encoder.json and vocab.bpe"
        ) from error
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    lines = [line for line in merges.split("\n") if line and not line.startswith("#version")]
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    # Written here and not by the library, whose next version might write, and so hash, otherwise.
    content = {
        "version": "1.0",
        "added_tokens": [added | flags],
        "pre_tokenizer": {"type": "ByteLevel", **byte_level},
        "decoder": {"type": "ByteLevel", **byte_level},
        "model": {
            "type": "BPE",
            "vocab": vocabulary,
            "merges": [line.rstrip("\r").split(" ") for line in lines],
        },
    }
    return ByteLevelTokenizer(json.dumps(content, ensure_ascii=False), str(folder / pair[0]))


def _read(folder: Path, name: str, pair: tuple[str, str]) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {folder / name}: {pair[0]} and {pair[1]} belong together in one folder"
        ) from error
