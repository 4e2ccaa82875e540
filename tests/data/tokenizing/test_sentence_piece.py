"""SentencePiece models, beside the library itself."""

import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings

from data import tokenizer as T
from data.tokenizing.sentence_piece import SentencePieceTokenizer
from errors import UserError
from tests.data.tokenizing.kinds import CORPUS, HARD, TEXTS, sentence_piece

OPTIONS: dict[str, dict[str, Any]] = {
    "unigram": {},
    "bpe": dict(model_type="bpe"),
    "no prefix": dict(add_dummy_prefix=False),
    "across words": dict(split_by_whitespace=False, model_type="bpe"),
    "with symbols": dict(user_defined_symbols=["<sep>", "  "], control_symbols=["<ctl>"]),
    "with \\n": dict(user_defined_symbols=["\n", "\n\n"], split_digits=True),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_ids_are_those_of_the_library(name: str) -> None:
    model = sentence_piece(**OPTIONS[name])
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = SentencePieceTokenizer(model, "x")
    assert tokenizer.prefix_bytes == (0 if name == "no prefix" else 1)

    @given(text=TEXTS.filter(lambda text: "\u2581" not in text))
    @settings(max_examples=100, deadline=None)
    def same(text: str) -> None:
        ids = tokenizer.encode_batch([text])[0].tolist()
        assert ids == library.encode(text)
        assert T.decode(tokenizer, ids)[tokenizer.prefix_bytes :] == library.decode(ids) == text

    same()
    for text in [*CORPUS, *HARD[:-2]]:
        assert tokenizer.encode_batch([text])[0].tolist() == library.encode(text)
    assert tokenizer.vocab_size == library.vocab_size()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (library.bos_id(), library.eos_id())


def test_the_librarys_sign_for_a_space_stays_itself() -> None:
    tokenizer = SentencePieceTokenizer(sentence_piece(), "x")
    plain, sign = tokenizer.encode_batch(["word word", "word\u2581word"])
    assert T.decode(tokenizer, plain) == " word word"
    assert T.decode(tokenizer, sign) == " word\u2581word"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(normalization_rule_name="nmt_nfkc"), "loses text .*'nmt_nfkc' changes"),
        (dict(remove_extra_whitespaces=True), "loses text .*drops white space"),
        (dict(byte_fallback=False), "has no byte fallback"),
        (dict(treat_whitespace_as_suffix=True), "loses text .*with a space"),
        (dict(bos_id=-1), "has no BOS"),
        (dict(eos_id=-1), "has no EOS"),
    ],
)
def test_a_model_that_will_not_do_is_one_line(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentence_piece(vocab_size=400, **options))
    with pytest.raises(UserError, match=rf"^{path} {message}.*\Z"):
        T.load(path)


@pytest.mark.parametrize("content", [b"\x0a\x01\x02", b""])
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path} is not a SentencePiece model.*\Z"):
        T.load(path)


def test_the_extra_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.model").write_bytes(b"any")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(
        UserError, match=r"needs the package sentencepiece: `make setup TOKENIZERS=1`\Z"
    ):
        T.load(tmp_path / "m.model")
