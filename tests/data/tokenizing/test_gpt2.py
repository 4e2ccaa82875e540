"""GPT-2's pair of files, beside tiktoken, which reads the same ranks with code of its own."""

import os
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from tiktoken_ext import openai_public  # type: ignore[import-untyped]

from data import tokenizer as T
from data.tokenizing import gpt2
from data.tokenizing.byte_level import byte_characters
from errors import UserError
from tests.data.tokenizing.kinds import CORPUS, HARD, TEXTS, gpt2_pair, of_kind

needs_assets = pytest.mark.skipif(
    not os.environ.get("PODIUM_ASSETS"),
    reason="PODIUM_ASSETS is unset: GPT-2's own files are too large for the repository",
)


def reference(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding(
        "x", pat_str=openai_public.r50k_pat_str, mergeable_ranks=ranks, special_tokens={}
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tiktoken.Encoding]:
    folder = tmp_path_factory.mktemp("gpt2")
    return folder, reference(gpt2_pair(folder))


def test_ids_are_those_of_the_files(pair: tuple[Path, tiktoken.Encoding]) -> None:
    tokenizer = of_kind("gpt2")

    @given(text=TEXTS)
    @settings(max_examples=150, deadline=None)
    def same(text: str) -> None:
        assert tokenizer.encode_batch([text])[0].tolist() == pair[1].encode_ordinary(text)

    same()
    for text in [*CORPUS, *HARD]:
        assert tokenizer.encode_batch([text])[0].tolist() == pair[1].encode_ordinary(text)


@pytest.mark.parametrize("name", ["", "encoder.json", "vocab.bpe"])
def test_the_folder_or_either_file(pair: tuple[Path, tiktoken.Encoding], name: str) -> None:
    tokenizer = T.load(pair[0] / name)
    assert tokenizer.fingerprint == of_kind("gpt2").fingerprint
    assert tokenizer.bos_id == tokenizer.eos_id == tokenizer.vocab_size - 1
    assert tokenizer.special_ids == {tokenizer.eos_id}


def test_the_names_that_hugging_face_gives_them(tmp_path: Path) -> None:
    gpt2_pair(tmp_path)
    (tmp_path / "encoder.json").rename(tmp_path / "vocab.json")
    (tmp_path / "vocab.bpe").rename(tmp_path / "merges.txt")
    assert T.load(tmp_path / "merges.txt").fingerprint == of_kind("gpt2").fingerprint
    assert T.load(tmp_path).fingerprint == of_kind("gpt2").fingerprint


def test_half_a_pair_is_one_line(tmp_path: Path) -> None:
    gpt2_pair(tmp_path)
    (tmp_path / "vocab.bpe").unlink()
    with pytest.raises(UserError, match=r"^cannot read .*vocab\.bpe: encoder\.json and .*\Z"):
        T.load(tmp_path)
    for content in ("{", "{}", "[]"):
        (tmp_path / "vocab.bpe").write_text("a b\n")
        (tmp_path / "encoder.json").write_text(content)
        with pytest.raises(UserError, match=r"^.*encoder\.json is not a vocabulary with .*\Z"):
            T.load(tmp_path)


def test_a_merge_of_unknown_tokens_is_one_line(tmp_path: Path) -> None:
    gpt2_pair(tmp_path)
    for line in ("zq qz", "one", "a b c"):
        (tmp_path / "vocab.bpe").write_text(f"#version: 0.2\n{line}\n")
        with pytest.raises(UserError, match=r"^.*encoder\.json is not .*\Z"):
            T.load(tmp_path)


@needs_assets
def test_the_real_one() -> None:
    folder = Path(os.environ["PODIUM_ASSETS"]) / "gpt2"
    tokenizer = T.load(folder)
    assert tokenizer.encode_batch(["Hello world"])[0].tolist() == [15496, 995]
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.bos_id) == (50257, 50256, 50256)
    ranks = {tokenizer.token(i): i for i in range(50256)}
    known = reference(ranks)
    for text in [*CORPUS, *HARD]:
        assert tokenizer.encode_batch([text])[0].tolist() == known.encode_ordinary(text)


def test_gpt2s_table_of_characters() -> None:
    table = byte_characters()
    assert len(set(table)) == 256
    assert [table[b] for b in (0x20, 0x0A, 0x41, 0xFF, 0x00)] == ["Ġ", "Ċ", "A", "ÿ", "Ā"]
    assert gpt2.PAIRS[0] == ("encoder.json", "vocab.bpe")
