"""Rank files, beside tiktoken with the patterns and specials that it ships."""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public  # type: ignore[import-untyped]

from data import tokenizer as T
from data.tokenizing import rank_file
from data.tokenizing.rank_file import RankFileTokenizer
from errors import UserError
from tests.data.tokenizing.kinds import CORPUS, HARD, TEXTS, of_kind, synthetic_ranks
from tests.data.tokenizing.kinds import rank_file as lines

RANKS = rank_file._ranks(synthetic_ranks(), "x")
# As Meta publishes it beside Llama 3.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict]:
    """What tiktoken knows of an encoding, without the ranks, which it would download."""
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *args, **more: {})
    return lambda name: openai_public.ENCODING_CONSTRUCTORS[name]()


@pytest.mark.parametrize("name", rank_file.ENCODINGS)
def test_ids_are_those_of_the_library(name: str, shipped: Callable[[str], dict]) -> None:
    pattern = LLAMA3 if name == "llama3" else shipped(name)["pat_str"]
    library = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=RANKS, special_tokens={})
    tokenizer = RankFileTokenizer(synthetic_ranks(), name, "x")

    @given(text=TEXTS)
    @example(text="\n\n  \n x\n")
    @settings(max_examples=100, deadline=None)
    def same(text: str) -> None:
        assert tokenizer.encode_batch([text])[0].tolist() == library.encode_ordinary(text)

    same()
    for text in [*CORPUS, *HARD]:
        assert tokenizer.encode_batch([text])[0].tolist() == library.encode_ordinary(text)


@pytest.mark.parametrize("name", ["r50k_base", "cl100k_base", "o200k_base"])
def test_specials_are_those_of_the_library(name: str, shipped: Callable[[str], dict]) -> None:
    encoding, specials = rank_file.ENCODINGS[name], shipped(name)["special_tokens"]
    end = specials["<|endoftext|>"]
    assert encoding.ranks + encoding.bos == encoding.ranks + encoding.eos == end
    assert encoding.ranks + encoding.extra == max(specials.values()) + 1


def test_llama_3_has_the_specials_of_its_model_card() -> None:
    encoding = rank_file.ENCODINGS["llama3"]
    assert (encoding.ranks + encoding.bos, encoding.ranks + encoding.eos) == (128000, 128001)
    assert encoding.ranks + encoding.extra == 128256


def test_a_published_file_is_known_by_its_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    as_many = dataclasses.replace(rank_file.ENCODINGS["o200k_base"], ranks=len(RANKS))
    monkeypatch.setitem(rank_file.ENCODINGS, "o200k_base", as_many)
    tokenizer = RankFileTokenizer(synthetic_ranks(), None, "x")
    assert tokenizer.fingerprint == of_kind("o200k").fingerprint
    assert tokenizer.bos_id == tokenizer.eos_id == len(RANKS) + 1
    assert tokenizer.vocab_size == len(RANKS) + 21


def test_any_name_of_the_file_will_do(tmp_path: Path) -> None:
    for name in ("mine.tiktoken", "tokenizer.model"):
        (tmp_path / name).write_bytes(synthetic_ranks())
        tokenizer = T.load(tmp_path / f"{name}:cl100k_base")
        assert tokenizer.fingerprint == of_kind("cl100k").fingerprint


@pytest.mark.parametrize("name", rank_file.ENCODINGS)
def test_runs_of_white_space_that_would_overflow(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut with a threshold of 2 as with the real one, which no text here reaches."""
    tokenizer = RankFileTokenizer(synthetic_ranks(), name, "x")
    pattern = tokenizer._run.pattern.replace(str(rank_file._OVERFLOW), "2")
    spaces = st.text(st.sampled_from(" \n\r\t\xa0\u3000\x0b\x1c/!a1'"), max_size=12)

    @given(text=TEXTS | spaces)
    @settings(max_examples=150, deadline=None)
    def same(text: str) -> None:
        whole = tokenizer._ids(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rank_file, "_OVERFLOW", 1)
            patch.setattr(tokenizer, "_run", re.compile(pattern))
            np.testing.assert_array_equal(tokenizer._encode(text), whole)

    same()
    for text in (
        " " * 1_200_000 + "x",
        "x\n" + "\t" * 1_200_000 + "12",
        "\n" * 1_200_000 + "\U0001f600",
    ):
        ids = tokenizer.encode_batch([text])[0]
        assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (synthetic_ranks(), "the encoding of {} with .* ranks is not known: write its path as"),
        (synthetic_ranks() + b"!!! 9\n", r"line \d+ of {} is not 'base64 rank'"),
        (synthetic_ranks() + b"YWJj\n", r"line \d+ of {} is not 'base64 rank'"),
        (synthetic_ranks() + b"YWJjYWJj 9999\n", "the ranks of {} are not 0, 1, 2"),
        (lines({b"a": 0, b"b": 1}), "{} lacks some of the 256 bytes"),
    ],
)
def test_an_unusable_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{message.format(path)}.*\Z"):
        T.load(path)


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(
        UserError, match=r"^x needs the package tiktoken: `make setup TOKENIZERS=1`\Z"
    ):
        RankFileTokenizer(synthetic_ranks(), "llama3", "x")
