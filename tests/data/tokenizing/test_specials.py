"""BOS and EOS of a tokenizer as the files beside it say."""

import json
import pickle

import pytest

from data import tokenizer as T
from data.tokenizing import specials
from errors import UserError

CORPUS = ["the cat sat on the mat, the cat"] * 20


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with a tokenizer of two more specials, and files beside it."""

    def make(named=None, config=None):
        content = json.loads(T.train_bpe(CORPUS, 300).serialized)
        flags = {"special": True, "normalized": False, "single_word": False}
        for i, spelling in enumerate(("<|im_start|>", "<|im_end|>")):
            token = {"id": 300 + i, "content": spelling, "lstrip": False, "rstrip": False}
            content["added_tokens"].append(token | flags)
        content["model"]["vocab"] |= {
            f"x{i}": i for i in range(len(content["model"]["vocab"]), 300)
        }
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        if named is not None:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return make


IM = {"bos_token": "<|im_start|>", "eos_token": {"content": "<|im_end|>"}}


@pytest.mark.parametrize(
    ("named", "config", "expected"),
    [
        (None, None, (0, 1)),
        (IM, None, (300, 301)),
        (IM, {"bos_token_id": 0, "eos_token_id": 0}, (300, 301)),
        (None, {"bos_token_id": 301, "eos_token_id": [300, 1]}, (301, 300)),
        ({"bos_token": None}, {"text_config": {"eos_token_id": 301}}, (301, 301)),
        ({"bos_token": "<|im_start|>"}, None, (300, 300)),
        ({"bos_token": "<unheard of>"}, {"bos_token_id": 9999}, (0, 1)),
        ([1], "no object", (0, 1)),
    ],
)
def test_which_they_are(folder, tmp_path, named, config, expected):
    tokenizer = T.load(folder(named, config))
    assert (tokenizer.bos_id, tokenizer.eos_id) == expected
    assert {300, 301} <= tokenizer.special_ids
    tokenizer.save(tmp_path / "saved.json")
    again = T.load(tmp_path / "saved.json")
    assert (again.bos_id, again.eos_id) == expected
    assert again.fingerprint == tokenizer.fingerprint
    copy = pickle.loads(pickle.dumps(again))
    assert (copy.bos_id, copy.eos_id, copy.fingerprint) == (*expected, again.fingerprint)
    assert T.decode(again, again.encode_batch(["the mat <|im_end|>"])[0]) == "the mat <|im_end|>"


def test_other_specials_are_another_tokenizer(folder):
    """Or stores of one would be taken for those of the other."""
    plain = T.load(folder()).fingerprint
    assert T.load(folder({"bos_token": "<|bos|>", "eos_token": "<|eos|>"})).fingerprint == plain
    assert T.load(folder(IM)).fingerprint != plain


def test_a_saved_tokenizer_that_is_damaged(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"type": "podium-byte-level", "tokenizer": "{}"}))
    with pytest.raises(UserError, match="damaged"):
        T.load(path)


def test_nothing_beside(tmp_path):
    assert specials.beside(tmp_path / "tokenizer.json", {}) == specials.NONE
