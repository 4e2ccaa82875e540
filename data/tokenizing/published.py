"""What is published with the tokenizer of a model, beside the tokenizer: how prompts begin, how
chats look, which ids end a text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from data.tokenizing.chat import ChatTemplate
from errors import UserError

FOLDER = "hf"
"""Where convert.py puts these files, beside the tokenizer of a workdir."""

_SPECIALS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class Published:
    """A folder with those of tokenizer.json, tokenizer_config.json, chat_template.jinja and
    generation_config.json that there are.

    Attributes:
      stop_ids: the ids that end a text; empty if none are named.
      template: of chats; None if there is none, or no tokenizer.json that knows what it spells.

    Args:
      folder: where they are.

    Raises:
      UserError: one of them cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _tokenizer(folder / "tokenizer.json")
        self._placing: tokenizers.Tokenizer | None = None
        config = _read_json(folder / "tokenizer_config.json")
        ends = _read_json(folder / "generation_config.json").get("eos_token_id")
        several = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.stop_ids = frozenset(int(i) for i in several)
        self.template = _template(folder, config) if self._tokenizer else None

    def prompt(self, text: str) -> list[int]:
        """The ids of a text that begins a document, with what the tokenizer puts around it.

        What spells a special is that special. Empty if there is no tokenizer.json.
        """
        if self._tokenizer is None:
            return []
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=True).ids
        return ids

    def rendered(self, text: str) -> list[int]:
        """The ids of what a template made: specials are spelled in it, and nothing is added."""
        assert self._tokenizer is not None  # or there would be no template
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def spelled(self, ids: Sequence[int]) -> str:
        """The text of ids, that of specials too; white space at its ends may be missing."""
        assert self._tokenizer is not None
        text: str = self._tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def placed(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """What `rendered` gives, and where each token begins.

        Returns:
          ids, uint32 [m]; characters of the text before each, int64 [m].
        """
        assert self._tokenizer is not None
        if self._placing is None:
            # What comes after the model moves the beginning of a token past its white space.
            content = json.loads(self._tokenizer.to_str())
            self._placing = tokenizers.Tokenizer.from_str(
                json.dumps(content | {"post_processor": None}, ensure_ascii=False)
            )
        found = self._placing.encode(text, add_special_tokens=False)
        starts = np.array([begin for begin, _ in found.offsets], np.int64)
        return np.array(found.ids, np.uint32), starts


def _tokenizer(path: Path) -> tokenizers.Tokenizer | None:
    """With the specials that text spells; None if there is none.

    Some models come with a SentencePiece model or with GPT-2's two files alone, and a run that
    started from a model with another tokenizer has nothing but its config.json.
    """
    if not path.exists():
        return None
    try:
        made = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises nothing more precise
        raise UserError(f"{path} is not a tokenizer.json: copy it again") from error
    made.no_truncation()
    made.no_padding()
    return made


def _template(folder: Path, config: dict[str, Any]) -> ChatTemplate | None:
    specials = {}
    for name in _SPECIALS:
        value = config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            specials[name] = value
    path = folder / "chat_template.jinja"
    if path.exists():
        return ChatTemplate(path.read_text(encoding="utf-8"), specials, str(path))
    source = config.get("chat_template")
    if isinstance(source, list):  # several, by name
        source = {one["name"]: one["template"] for one in source}.get("default")
    if source is None:
        return None
    return ChatTemplate(source, specials, str(folder / "tokenizer_config.json"))


def _read_json(path: Path) -> dict[str, Any]:
    """What a file holds; nothing if there is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON, or damaged: copy it again") from error
    return found
