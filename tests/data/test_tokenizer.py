import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from data import tokenizer as T
from data.tokenizer import BpeTokenizer, ByteTokenizer, StreamingDecoder, Tokenizer
from errors import UserError

CORPUS = [
    f"def function_{i}(x):\n    if x > {i}:\n        return 'naïve — 漢字 {i}'\n" for i in range(50)
]
TOKENIZERS: dict[str, Tokenizer] = {
    "byte": ByteTokenizer(),
    "bpe": T.train_bpe(CORPUS, 400),
}
# Any text without surrogates, and text in which the hard cases are likely.
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from([" ", "\n", "\r\n", "\t", "    ", "def", "'s", "_a", "é", "e\u0301", "\u200d"])
    | st.sampled_from(["👩\u200d💻", "\ufeff", "\x00", "\u2028", "ﬁ", "12345", T.BOS, T.EOS, "<|"])
).map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(texts=st.lists(TEXTS, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back_and_every_byte_is_counted(name: str, texts: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    encoded = tokenizer.encode_batch(texts)
    for text, ids in zip(texts, encoded, strict=True):
        assert T.decode(tokenizer, ids) == text
        assert not tokenizer.special_ids & set(ids)
        assert tokenizer.token_bytes[np.array(ids, int)].sum() == len(text.encode())
        stream = StreamingDecoder(tokenizer)
        assert "".join(map(stream.add, ids)) + stream.end() == text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_table_of_bytes(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes.dtype == np.int32
    for i in range(tokenizer.vocab_size):
        assert tokenizer.token_bytes[i] == len(tokenizer.token(i))
        assert (i in tokenizer.special_ids) == (tokenizer.token(i) == b"")
    assert {tokenizer.bos_id, tokenizer.eos_id} == tokenizer.special_ids
    assert tokenizer.token(tokenizer.vocab_size) == b""  # a model's vocabulary may be padded


def test_text_that_spells_a_special_stays_text() -> None:
    tokenizer = TOKENIZERS["bpe"]
    ids = tokenizer.encode_batch([f"a{T.BOS}b{T.EOS}"])[0]
    assert len(ids) > 4 and not tokenizer.special_ids & set(ids)
    trained_on_it = T.train_bpe([f"{T.BOS}{T.EOS} " * 99], 300)
    ids = trained_on_it.encode_batch([T.BOS])[0]
    assert not trained_on_it.special_ids & set(ids) and T.decode(trained_on_it, ids) == T.BOS


def test_indentation_is_one_token() -> None:
    tokenizer = TOKENIZERS["bpe"]
    tokens = [tokenizer.token(i) for i in tokenizer.encode_batch([CORPUS[0]])[0]]
    assert b":\n        " in tokens and b" return" not in tokens and b"return" in tokens


def test_training_is_deterministic() -> None:
    assert T.train_bpe(CORPUS, 400).fingerprint == TOKENIZERS["bpe"].fingerprint
    assert T.train_bpe(CORPUS[:-1], 400).fingerprint != TOKENIZERS["bpe"].fingerprint


@pytest.mark.parametrize("name", TOKENIZERS)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    TOKENIZERS[name].save(tmp_path / "tokenizer.json")
    loaded = T.load(tmp_path / "tokenizer.json")
    assert loaded.fingerprint == TOKENIZERS[name].fingerprint
    assert loaded.encode_batch(CORPUS) == TOKENIZERS[name].encode_batch(CORPUS)
    assert type(loaded) is type(TOKENIZERS[name])


def test_streaming_holds_back_unfinished_characters() -> None:
    stream = StreamingDecoder(ByteTokenizer())
    out = [stream.add(i) for i in [256, *"é漢".encode(), 0xE6, 257]]
    assert out == ["", "", "é", "", "", "漢", "", ""]
    assert stream.end() == "\ufffd"


def external(**parts: object) -> str:
    """A tokenizer.json as others write them, from the one we train."""
    content = json.loads(T.train_bpe(CORPUS, 300)._serialized)
    return json.dumps(content | parts).replace(T.BOS, "<|endoftext|>")


def test_a_tokenizer_with_one_special_for_both_ends() -> None:
    content = json.loads(external())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != T.EOS]
    del content["model"]["vocab"][T.EOS]
    tokenizer = BpeTokenizer(json.dumps(content), "x")
    assert tokenizer.bos_id == tokenizer.eos_id == 0
    assert tokenizer.token_bytes[1] == 0  # an id not in use


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a tokenizer.json"),
        (external(normalizer={"type": "NFKC"}), "does not give every text back"),
        (external().replace("<|endoftext|>", "<a>"), "has no BOS that Podium knows"),
        (
            tokenizers.Tokenizer(
                tokenizers.models.WordLevel({"<s>": 0, "</s>": 1, "日": 2}, "<s>")
            ).to_str(),
            "is not byte-level",
        ),
    ],
)
def test_an_unusable_tokenizer_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"^{path} {message}.*\Z"):
        T.load(path)


def test_a_missing_tokenizer_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^cannot read a tokenizer at .*none\.json.*'bpe'.*\Z"):
        T.load(tmp_path / "none.json")
