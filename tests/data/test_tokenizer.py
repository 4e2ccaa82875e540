"""What every tokenizer promises, whatever its kind."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data import tokenizer as T
from data.tokenizer import ByteTokenizer, StreamingDecoder
from tests.data.tokenizing.kinds import CORPUS, HARD, KINDS, TEXTS, of_kind


@pytest.mark.parametrize("kind", KINDS)
@given(texts=st.lists(TEXTS, max_size=4))
@example(texts=HARD)
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_and_every_byte_is_counted(kind: str, texts: list[str]) -> None:
    tokenizer = of_kind(kind)
    prefix = " " * tokenizer.prefix_bytes
    encoded = zip(texts, tokenizer.encode_batch(texts), tokenizer.encode_inner(texts), strict=True)
    for text, ids, inner in encoded:
        expected = prefix + text if text else ""
        assert ids.dtype == np.uint32 and ids.ndim == 1
        assert T.decode(tokenizer, ids) == expected
        assert T.decode(tokenizer, inner) == text
        assert not tokenizer.special_ids & set(ids.tolist())
        assert tokenizer.token_bytes[ids].sum() == len(expected.encode())
        stream = StreamingDecoder(tokenizer)
        assert "".join(map(stream.add, ids.tolist())) + stream.end() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_bytes(kind: str) -> None:
    tokenizer = of_kind(kind)
    assert tokenizer.token_bytes.shape == (tokenizer.vocab_size,)
    assert tokenizer.token_bytes.dtype == np.int32
    for i in range(tokenizer.vocab_size):
        assert tokenizer.token_bytes[i] == len(tokenizer.token(i))
        assert (i in tokenizer.special_ids) == (tokenizer.token(i) == b"")
    assert {tokenizer.bos_id, tokenizer.eos_id} <= tokenizer.special_ids
    assert tokenizer.token(tokenizer.vocab_size) == b""  # a model's vocabulary may be padded


@pytest.mark.parametrize("kind", KINDS)
def test_every_byte_has_an_id(kind: str) -> None:
    tokenizer = of_kind(kind)
    single = {tokenizer.token(i) for i in range(tokenizer.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= single


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_spells_a_special_stays_text(kind: str) -> None:
    tokenizer = of_kind(kind)
    text = f"a{T.BOS}b{T.EOS}<s></s><pad><unk><|endoftext|><|begin_of_text|><0x0A>"
    ids = tokenizer.encode_batch([text])[0]
    assert not tokenizer.special_ids & set(ids.tolist())
    assert T.decode(tokenizer, ids).strip() == text


@pytest.mark.parametrize("kind", KINDS)
def test_save_load_and_pickle(kind: str, tmp_path: Path) -> None:
    tokenizer = of_kind(kind)
    tokenizer.save(tmp_path / "tokenizer.json")
    for copy in (T.load(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert type(copy) is type(tokenizer)
        for name in ("fingerprint", "vocab_size", "bos_id", "eos_id", "prefix_bytes"):
            assert getattr(copy, name) == getattr(tokenizer, name)
        for a, b in zip(copy.encode_batch(CORPUS), tokenizer.encode_batch(CORPUS), strict=True):
            np.testing.assert_array_equal(a, b)


def test_kinds_have_fingerprints_of_their_own() -> None:
    assert len({of_kind(kind).fingerprint for kind in KINDS}) == len(KINDS)


def test_bytes_are_their_own_ids() -> None:
    ids = ByteTokenizer().encode_batch(["aé\x00"])[0]
    assert ids.tolist() == [97, 0xC3, 0xA9, 0]
    assert T.to_bytes(ByteTokenizer(), range(256)) == bytes(range(256))


def test_streaming_holds_back_unfinished_characters() -> None:
    stream = StreamingDecoder(ByteTokenizer())
    out = [stream.add(i) for i in [256, *"é漢".encode(), 0xE6, 257]]
    assert out == ["", "", "é", "", "", "漢", "", ""]
    assert stream.end() == "\ufffd"
