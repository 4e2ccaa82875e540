"""What begins and ends documents, as the files that are published beside a tokenizer.json say."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_TOKENIZER_CONFIG, _CONFIG = "tokenizer_config.json", "config.json"


class Specials(NamedTuple):
    """The spellings of BOS and EOS; "" where nothing says them."""

    bos: str = ""
    eos: str = ""


NONE = Specials()


def beside(path: Path, saved: Mapping[str, Any]) -> Specials:
    """Those of a tokenizer.json: by tokenizer_config.json, else by the ids of config.json.

    One that is said nowhere, of a tokenizer of which the other one is, is the same as that: Qwen
    has no BOS, and begins documents with the token that ends them.

    Args:
      path: of the tokenizer.json.
      saved: its content.
    """
    named, config = (_read(path.parent / name) for name in (_TOKENIZER_CONFIG, _CONFIG))
    config = config.get("text_config") or config
    added = [token for token in saved.get("added_tokens") or () if isinstance(token, Mapping)]
    spelling_of = {token.get("id"): str(token.get("content", "")) for token in added}
    known = set(spelling_of.values())

    def find(role: str) -> str:
        token = named.get(f"{role}_token")
        spelling = token.get("content") if isinstance(token, Mapping) else token
        if isinstance(spelling, str) and spelling in known:
            return spelling
        ids = config.get(f"{role}_token_id")
        first = ids[0] if isinstance(ids, list) and ids else ids
        return spelling_of.get(first, "") if isinstance(first, int) else ""

    bos, eos = find("bos"), find("eos")
    return Specials(bos or eos, eos or bos)


def _read(path: Path) -> dict[str, Any]:
    """A file of JSON; nothing where there is none, or it is damaged: it may be somebody else's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
