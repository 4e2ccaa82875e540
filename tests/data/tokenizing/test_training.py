"""Trained tokenizers: the same texts give the same one, in every process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data import tokenizer as T
from data.tokenizing import training
from tests.data.tokenizing.kinds import CORPUS, TRAINING, of_kind
from tests.running import ROOT

KINDS = list(T.TRAINERS)


@pytest.mark.parametrize("kind", KINDS)
def test_specials_bytes_and_the_size_that_was_asked_for(kind: str) -> None:
    tokenizer = T.TRAINERS[kind](iter(TRAINING), 800)
    assert tokenizer.vocab_size == 800
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    assert tokenizer.special_ids == {0, 1}
    lengths = [len(ids) for ids in tokenizer.encode_batch(CORPUS)]
    assert sum(lengths) < 0.7 * sum(len(text.encode()) for text in CORPUS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_of_bytes_alone(kind: str) -> None:
    tokenizer = T.TRAINERS[kind](["", *TRAINING], 258)
    assert tokenizer.vocab_size == 258
    assert T.decode(tokenizer, tokenizer.encode_batch(["né 漢"])[0]) == "né 漢"


PROGRAM = """
from data import tokenizer as T
from tests.data.tokenizing.kinds import TRAINING
print(*(train(TRAINING, 800).fingerprint for train in T.TRAINERS.values()))
"""


def test_the_same_texts_give_the_same_ids_in_every_process() -> None:
    here = [train(iter(TRAINING), 800).fingerprint for train in T.TRAINERS.values()]
    for threads in ("1", "3"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PROGRAM]
        ran = subprocess.run(command, env=environment, check=True, capture_output=True, cwd=ROOT)
        assert ran.stdout.decode().split() == here
    other = [train(TRAINING[30:], 800).fingerprint for train in T.TRAINERS.values()]
    assert not set(other) & set(here)


def test_what_differs_from_run_to_run_is_taken_out() -> None:
    one = [(T.BOS, 0.0), (T.EOS, 0.0), ("a", -1.25), ("ab", -3.0000000001), ("ac", -3.0)]
    two = [(T.BOS, 0.0), (T.EOS, 0.0), ("a", -1.2500000001), ("ac", -3.0), ("ab", -3.0)]
    made_up = [("Ā", -7.5), ("ā", -7.4999), ("zz", -7.4998)]
    again = [("ā", -7.5), ("Ā", -7.4999), ("zz", -7.4998)]
    settled = training._settle(one + made_up, 99)
    assert settled == training._settle(two + again, 99)
    assert [piece for piece, _ in settled] == [T.BOS, T.EOS, "a", "ab", "ac", "zz", "Ā", "ā"]
    assert [p for p, _ in training._settle(one + made_up, 6)] == [T.BOS, T.EOS, "a", "ab", "Ā", "ā"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_learnt_from_in_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = ["ab cd " * 50, " ef" * 100]
    monkeypatch.setattr(training, "_PART", 300)
    whole = T.TRAINERS[kind](["".join(cut)], 270)
    assert whole.fingerprint == T.TRAINERS[kind](cut, 270).fingerprint


def test_text_that_spells_a_special_is_not_learnt_as_one() -> None:
    for train in T.TRAINERS.values():
        tokenizer = train([f"{T.BOS}{T.EOS} " * 99], 300)
        ids = tokenizer.encode_batch([T.BOS])[0]
        assert not tokenizer.special_ids & set(ids.tolist())
        assert T.decode(tokenizer, ids) == T.BOS


def test_indentation_is_one_token() -> None:
    tokenizer = of_kind("bpe")
    tokens = [tokenizer.token(i) for i in tokenizer.encode_batch([CORPUS[0]])[0]]
    assert b":\n        " in tokens and b" return" not in tokens and b"return" in tokens


def test_unigram_takes_the_likeliest_pieces() -> None:
    """Viterbi over the vocabulary by hand, with its scores, gives a segmentation as likely."""
    tokenizer = of_kind("unigram")
    assert isinstance(tokenizer, T.ByteLevelTokenizer)
    model = json.loads(tokenizer.serialized)["model"]
    score = {tokenizer.token(i): s for i, (_, s) in enumerate(model["vocab"]) if i > 1}
    for word in ("function", " return", "naïve", " хеллоу"):
        raw = word.encode()
        best = [0.0] + [-1e9] * len(raw)
        for end in range(1, len(raw) + 1):
            starts = (s for s in range(end) if raw[s:end] in score)
            best[end] = max(best[s] + score[raw[s:end]] for s in starts)
        ids = tokenizer.encode_batch([word])[0]
        assert sum(score[tokenizer.token(i)] for i in ids) == pytest.approx(best[-1], abs=1e-9)


def test_the_file_of_a_trained_tokenizer_is_loaded_again(tmp_path: Path) -> None:
    of_kind("unigram").save(tmp_path / "tokenizer.json")
    assert T.load(tmp_path / "tokenizer.json").fingerprint == of_kind("unigram").fingerprint
