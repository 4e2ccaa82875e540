"""What a path holds is told by the content."""

import json
from pathlib import Path

import pytest

from data import tokenizer as T
from errors import UserError
from tests.data.tokenizing.kinds import KINDS, of_kind, sentence_piece, synthetic_ranks


def test_a_folder_is_searched_for_the_usual_names(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentence_piece())
    assert isinstance(T.load(tmp_path), T.SentencePieceTokenizer)
    of_kind("bpe").save(tmp_path / "tokenizer.json")
    assert isinstance(T.load(tmp_path), T.ByteLevelTokenizer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^.*empty is a folder without a tokenizer: give .*\Z"):
        T.load(tmp_path / "empty")


def test_a_missing_tokenizer_is_one_line(tmp_path: Path) -> None:
    for name in ("none.json", "none.tiktoken:llama3"):
        with pytest.raises(UserError, match=r"^cannot read a tokenizer at .*none\..*'bpe'.*\Z"):
            T.load(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"[1]", b"\xff\xfe", b"aGk= 0 x\n"])
def test_a_file_of_no_known_form_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"^.*x\.bin is not a tokenizer that Podium reads: .*\Z"):
        T.load(tmp_path / "x.bin")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_ours_that_is_damaged_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    of_kind(kind).save(path)
    saved = path.read_text()
    path.write_text(saved[: len(saved) // 2])
    with pytest.raises(UserError, match=rf"^{path} is .*\Z"):
        T.load(path)


@pytest.mark.parametrize("kind", ["podium-sentencepiece", "podium-tiktoken"])
def test_a_file_of_ours_without_its_content_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"type": kind, "version": 1, "model": "!", "ranks": 3}))
    with pytest.raises(UserError, match=rf"^{path} is damaged: .*\Z"):
        T.load(path)


def test_a_rank_file_needs_no_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(synthetic_ranks())
    assert isinstance(T.load(tmp_path / "x:llama3"), T.RankFileTokenizer)
