"""Whether the ids of two tokenizers stand for the same."""

from typing import Protocol


class Ids(Protocol):
    """What is compared of a tokenizer (data/tokenizer.py)."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def special_ids(self) -> frozenset[int]: ...
    def token(self, token_id: int) -> bytes: ...


def first_difference(one: Ids, other: Ids) -> str:
    """The first id that stands for something else, and what it stands for in each; "" if none does.

    Ids that are not in use, in one of them, may be missing in the other.
    """
    for token_id in range(max(one.vocab_size, other.vocab_size)):
        here, there = (_shown(tokenizer, token_id) for tokenizer in (one, other))
        if here != there:
            return f"id {token_id} is {here} here and {there} there"
    return ""


def _shown(tokenizer: Ids, token_id: int) -> str:
    if token_id >= tokenizer.vocab_size:
        return "nothing"
    if (text := tokenizer.token(token_id)) and token_id not in tokenizer.special_ids:
        return repr(text.decode(errors="backslashreplace"))
    named = [name for name in ("bos", "eos") if getattr(tokenizer, f"{name}_id") == token_id]
    return f"the special {' and '.join(named)}" if named else "nothing"
