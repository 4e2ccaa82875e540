"""What is published with the tokenizer of a model, beside the tokenizer: how prompts begin, how
chats look, which ids end a text."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from data.tokenizing.chat import ChatTemplate
from errors import UserError

_SPECIALS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class Published:
    """A folder with tokenizer.json, and of tokenizer_config.json, chat_template.jinja and
    generation_config.json those that there are.

    Attributes:
      stop_ids: the ids that end a text; empty if none are named.
      template: of chats; None if there is none.

    Args:
      folder: where they are.

    Raises:
      UserError: one of them cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing more precise
            raise UserError(f"{path} is missing, or not a tokenizer.json: copy it again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        config = _read_json(folder / "tokenizer_config.json")
        ends = _read_json(folder / "generation_config.json").get("eos_token_id")
        several = ends if isinstance(ends, list) else [] if ends is None else [ends]
        self.stop_ids = frozenset(int(i) for i in several)
        self.template = _template(folder, config)

    def prompt(self, text: str) -> list[int]:
        """The ids of a text that begins a document, with what the tokenizer puts around it.

        What spells a special is that special.
        """
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=True).ids
        return ids

    def rendered(self, text: str) -> list[int]:
        """The ids of what a template made: specials are spelled in it, and nothing is added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


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
