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
    text = _beginning_with_bos(tokenizer)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokenizer.spelling(tokenizer.bos_id),
        "eos_token": tokenizer.spelling(tokenizer.eos_id),
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return []


def _beginning_with_bos(tokenizer: ByteLevelTokenizer) -> str:
    """Its tokenizer.json, by which texts begin as the documents did that the model was trained on.

    In the file's own form, and not written by the library: whose next version might write others.
    """
    content = json.loads(tokenizer.serialized)
    bos = tokenizer.spelling(tokenizer.bos_id)
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, second],
        "special_tokens": {bos: {"id": bos, "ids": [tokenizer.bos_id], "tokens": [bos]}},
    }
    return json.dumps(content, indent=2, ensure_ascii=False)
