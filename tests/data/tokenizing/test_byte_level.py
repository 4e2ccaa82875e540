"""A tokenizer.json as others write them."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from data import tokenizer as T
from data.tokenizer import ByteLevelTokenizer
from errors import UserError
from tests.data.tokenizing.kinds import CORPUS


def external(**parts: Any) -> str:
    """A tokenizer.json as others write them, from the one we train."""
    content = json.loads(T.train_bpe(CORPUS, 300).serialized)
    return json.dumps(content | parts).replace(T.BOS, "<|endoftext|>")


def with_added(**flags: bool) -> str:
    """With a token " ok " that is no special."""
    content = json.loads(external())
    token = dict(id=300, content="ok", single_word=False, lstrip=False, rstrip=False)
    content["added_tokens"].append(token | dict(normalized=False, special=False) | flags)
    return json.dumps(content)


def test_a_tokenizer_with_one_special_for_both_ends() -> None:
    content = json.loads(external())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != T.EOS]
    del content["model"]["vocab"][T.EOS]
    tokenizer = ByteLevelTokenizer(json.dumps(content), "x")
    assert tokenizer.bos_id == tokenizer.eos_id == 0
    assert tokenizer.token_bytes[1] == 0 and 1 in tokenizer.special_ids  # an id not in use


def test_an_added_token_that_is_no_special_is_text() -> None:
    tokenizer = ByteLevelTokenizer(with_added(), "x")
    ids = tokenizer.encode_batch(["is it ok or"])[0].tolist()
    assert 300 in ids and tokenizer.token(300) == b"ok" and 300 not in tokenizer.special_ids
    assert T.decode(tokenizer, ids) == "is it ok or"


NFC = {"type": "NFC"}


@pytest.mark.parametrize("normalizer", [NFC, {"type": "Sequence", "normalizers": [NFC]}])
def test_normal_form_c_is_left_to_the_text(tmp_path: Path, normalizer: dict[str, Any]) -> None:
    """Text that has it gets the ids of the library, other text comes back; it stays in the file."""
    content = external(normalizer=normalizer)
    tokenizer = ByteLevelTokenizer(content, "x")
    library = tokenizers.Tokenizer.from_str(content)
    composed, apart = "caf\u00e9 rose", "cafe\u0301 rose"
    assert tokenizer.encode_batch([composed])[0].tolist() == library.encode(composed).ids
    assert library.encode(apart).ids == library.encode(composed).ids  # it does change text
    assert T.decode(tokenizer, tokenizer.encode_batch([apart])[0].tolist()) == apart
    tokenizer.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_text() == content
    assert T.load(tmp_path / "tokenizer.json").fingerprint == tokenizer.fingerprint


ADD_SPACE = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a tokenizer.json"),
        ('{"type": "x"}', "is not a tokenizer.json"),
        (external(normalizer={"type": "NFD"}), "does not give every text back"),
        (
            external(normalizer={"type": "Sequence", "normalizers": [NFC, {"type": "Lowercase"}]}),
            "does not give every text back",
        ),
        (external(normalizer={"type": "NFKC"}), "does not give every text back"),
        (external(normalizer={"type": "Lowercase"}), "does not give every text back"),
        (external(pre_tokenizer=ADD_SPACE), "does not give every text back"),
        (with_added(lstrip=True), "does not give every text back"),
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
