"""The files of a tokenizer as `transformers` reads them."""

import json
from pathlib import Path

from data.tokenizer import ByteLevelTokenizer, SentencePieceTokenizer, Tokenizer


def write(tokenizer: Tokenizer, folder: Path) -> list[str]:
    """Writes them; returns a line where there are none for its kind."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        (folder / "tokenizer.model").write_bytes(tokenizer.model)
        return []
    if not isinstance(tokenizer, ByteLevelTokenizer):
        kind = type(tokenizer).__name__
        return [f"the tokenizer is not written: transformers has no files for a {kind}"]
    (folder / "tokenizer.json").write_text(tokenizer.serialized, encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.spelling(tokenizer.bos_id),
        "eos_token": tokenizer.spelling(tokenizer.eos_id),
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return []
