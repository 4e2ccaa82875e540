"""Documents of any size: whatever the parts are, the ids are those of the whole."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizer as T
from data.tokenizing import gpt2, long
from tests.data.tokenizing.kinds import CORPUS, KINDS, TEXTS, of_kind

# Runs of one kind of text, in an order that is drawn: cuts fall between and inside them.
_REPEATED = """word | |x|12|1,|👩\u200d💻|字|你好，|नमस्ते |שלום |e\u0301|\u2581|ab. |\
 \u0301a|a_b|'S|\n|\r\n|\t|\xa0|\u3000x|..|A|,\n|  y|"Q" |中 |don't """.split("|")
_RUNS = st.lists(
    st.tuples(st.sampled_from([*_REPEATED, *CORPUS[:2]]) | TEXTS, st.integers(1, 60)), max_size=12
).map(lambda runs: "".join(text * times for text, times in runs))


def same_ids(tokenizer: T.Tokenizer, text: str, limit: int) -> int:
    """Checks the joined ids against those of the whole; returns how many parts there were."""
    whole = tokenizer.encode_batch([text])[0]
    parts = list(long.pieces(text, tokenizer, limit))
    assert "".join(parts) == text
    joined = np.concatenate(list(long.encode_long(tokenizer, text, limit)))
    if isinstance(tokenizer, T.SentencePieceTokenizer) and not np.array_equal(joined, whole):
        assert_as_likely(tokenizer, joined, whole)
    else:
        np.testing.assert_array_equal(joined, whole)
    assert joined.dtype == np.uint32
    return len(parts)


def assert_as_likely(tokenizer: T.SentencePieceTokenizer, a: np.ndarray, b: np.ndarray) -> None:
    """A Unigram model of the library rounds its sums over a long text: ids may differ in ties."""
    assert tokenizer is of_kind("sentencepiece_unigram")
    assert T.to_bytes(tokenizer, a) == T.to_bytes(tokenizer, b)
    library = tokenizer._library
    scores = np.array([library.get_score(i) for i in range(tokenizer.vocab_size)], np.float64)
    np.testing.assert_allclose(scores[a].sum(), scores[b].sum(), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(text=_RUNS, limit=st.integers(40, 1000))
@settings(max_examples=40, deadline=None)
def test_the_ids_of_the_parts_are_those_of_the_whole(kind: str, text: str, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long, "_WINDOW", 64)  # far less than the texts: cuts are good beyond it
        same_ids(of_kind(kind), text, limit)


ADVERSARIAL = {
    "one word": "a" * 400_000,
    "one word among others": "some words " * 2000 + "ab" * 30_000 + " and more of them" * 2000,
    "only spaces": " " * 100_000,
    "only line ends": "\n" * 100_000,
    "only emoji": "👩\u200d👩\u200d👧\u200d👦" * 5000,
    "one number": "31415926535" * 6000,
    "numbers": "".join(f"{i * 7919}, " for i in range(3000)),
    "no spaces": "天地玄黃宇宙洪荒日月盈昃辰宿列張" * 2000,
    "no spaces, but commas": "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。" * 1500,
    "marks": "नमस्ते दुनिया। " * 2000,
    "marks without letters": "\u0301\u0308" * 15_000,
    "contractions": "it's we'll they'RE don't " * 1500,
    "code": "".join(CORPUS) * 3,
    "the space of SentencePiece": "word\u2581word \u2581" * 2500,
    "controls": "".join(map(chr, range(32))) * 1000,
    "empty": "",
}
# Whole because a tokenizer that works within words sees them as one, or because no cut is tried.
UNCUT = {
    "one word", "only spaces", "only line ends", "only emoji", "one number", "no spaces",
    "marks without letters", "controls", "empty",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_texts_that_are_hard_to_cut(kind: str) -> None:
    for name, text in ADVERSARIAL.items():
        parts = same_ids(of_kind(kind), text, 1 << 13)
        assert (parts == 1) == (name in UNCUT), name


@pytest.mark.parametrize("kind", KINDS)
def test_documents_in_one_call(kind: str) -> None:
    tokenizer = of_kind(kind)
    texts = ["", "short", "".join(CORPUS), " ", "x " * 5000, "y"]
    together = long.encode_documents(tokenizer, texts, 1000)
    for a, b in zip(together, tokenizer.encode_batch(texts), strict=True):
        np.testing.assert_array_equal(a, b)
    assert long.encode_documents(tokenizer, []) == []


@pytest.mark.parametrize("kind", KINDS)
def test_white_space_longer_than_the_window(kind: str) -> None:
    """What a pattern makes of a run depends on its far ends."""
    for run in ("\n" * 3001, " " + "\n" * 3001, "\n" * 3000 + "\t", " " * 2999, "\r\n" * 2001):
        for after in ("word ", "é", "7", "., ", "'s "):
            same_ids(of_kind(kind), ("word" + run + after) * 3, 2000)


def test_parts_are_about_as_long_as_asked() -> None:
    parts = list(long.pieces("".join(CORPUS) * 3, of_kind("bpe"), 10_000))
    assert all(9000 < len(part) <= 10_000 for part in parts[:-1])


class Pairs:
    """Merges a letter and the space after it, so that no cut between words keeps the ids."""

    prefix_bytes = 0

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        spelled = (text.replace("a ", "A") for text in texts)
        return [np.frombuffer(text.encode(), np.uint8).astype(np.uint32) for text in spelled]

    encode_inner = encode_batch


def test_a_cut_that_changes_the_ids_is_not_made() -> None:
    text = "a " * 3000 + "a"
    assert list(long.pieces(text, Pairs(), 600)) == [text]  # type: ignore[arg-type]
    mixed = "a " * 3000 + "c c\n" * 1000
    parts = list(long.pieces(mixed, Pairs(), 600))  # type: ignore[arg-type]
    assert len(parts[0]) > 6000 and len(parts) > 4
    ids = Pairs().encode_batch([mixed])[0]
    np.testing.assert_array_equal(np.concatenate(Pairs().encode_batch(parts)), ids)


@pytest.mark.skipif(
    not os.environ.get("PODIUM_ASSETS"), reason="PODIUM_ASSETS is unset: no books, no GPT-2 files"
)
def test_books_with_gpt2() -> None:
    assets = Path(os.environ["PODIUM_ASSETS"])
    tokenizer = gpt2.load(assets / "gpt2", gpt2.PAIRS[0])
    with gzip.open(assets / "books" / "valid.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    longest = sorted(texts, key=len)[-1:]
    for text in longest:
        assert same_ids(tokenizer, text, 1 << 14) > len(text) >> 14
