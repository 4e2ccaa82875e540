"""Two tokenizers whose ids stand for the same, or for something else from some id on."""

from typing import NamedTuple

from data.tokenizer import ByteTokenizer
from data.tokenizing.comparison import first_difference


class Few(NamedTuple):
    """A tokenizer of a few tokens; empty ones are not in use."""

    tokens: tuple[bytes, ...]
    bos_id: int = 0
    eos_id: int = 1
    special_ids: frozenset[int] = frozenset({0, 1})

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def token(self, token_id: int) -> bytes:
        return self.tokens[token_id]


ONE = Few((b"", b"", b"the", b"\xff"))


def test_the_first_difference_is_named() -> None:
    other = ONE._replace(tokens=(b"", b"", b"The", b"x"))
    assert first_difference(ONE, other) == "id 2 is 'the' here and 'The' there"
    other = ONE._replace(tokens=(*ONE.tokens[:3], b"x"))
    assert first_difference(ONE, other) == r"id 3 is '\\xff' here and 'x' there"
    other = ONE._replace(eos_id=0)
    both = "id 0 is the special bos here and the special bos and eos there"
    assert first_difference(ONE, other) == both
    assert first_difference(ONE, ONE._replace(tokens=ONE.tokens[:3])).endswith("and nothing there")


def test_ids_that_are_not_in_use_may_be_missing() -> None:
    assert first_difference(ONE, ONE._replace(tokens=(*ONE.tokens, b"", b""))) == ""
    assert first_difference(ByteTokenizer(), ByteTokenizer()) == ""
