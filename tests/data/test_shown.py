"""Documents as people read them."""

import numpy as np
import pytest

from data.shown import marked, printable, shortened
from data.tokenizer import ByteTokenizer, train_bpe

BYTES = ByteTokenizer()
IDS = [BYTES.bos_id, *b"ask\x1b me\n: one\ntwo", BYTES.eos_id]
LEARNED = np.arange(len(IDS)) >= len(IDS) - 9


def test_what_is_learned_is_between_marks_line_by_line() -> None:
    lines = list(marked(BYTES, np.array(IDS), LEARNED, 0, colours=False))
    assert lines == ["<BOS>ask\\x1b me", ":[[ one]]", "[[two<EOS>]]"]
    coloured = list(marked(BYTES, np.array(IDS), LEARNED, 0, colours=True))
    begin, end = "\x1b[1;32m", "\x1b[0m"
    assert coloured == [line.replace("[[", begin).replace("]]", end) for line in lines]


def test_specials_are_spelled_as_their_tokenizer_spells_them() -> None:
    bpe = train_bpe(["some text"], 258)
    ids = np.array([bpe.bos_id, *bpe.encode_batch(["a b"])[0], bpe.eos_id])
    all_of_it = np.ones(ids.size, np.bool_)
    assert list(marked(bpe, ids, all_of_it, 0, False)) == ["[[<|bos|>a b<|eos|>]]"]


@pytest.mark.parametrize(
    ("text", "width", "expected"), [("abcdef", 0, "abcdef"), ("abcdefgh", 5, "abc ... gh")]
)
def test_long_texts_keep_both_ends(text: str, width: int, expected: str) -> None:
    assert shortened(text, width) == expected


def test_a_terminal_has_nothing_to_obey() -> None:
    assert printable("a\tb\x1b[2J") == "a\tb\\x1b[2J"
