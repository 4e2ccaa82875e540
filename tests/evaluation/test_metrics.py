"""Metrics beside examples counted by hand, and beside the libraries' own figures."""

import math
import sys

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from errors import UserError
from evaluation import intervals, metrics
from evaluation.metrics import METRICS, last_number, normalised, token_f1

ANSWERS = ["A dog runs on the beach.", "two men", " Kids play soccer ", "", "the red car is fast"]
TARGETS = [
    "The dog is running on a beach.",
    "Two men are sitting.",
    "Kids play soccer",
    "Nobody.",
    "a red car goes very fast, today",
]


def judged(name: str, answers=ANSWERS, targets=TARGETS) -> dict[str, intervals.Estimate]:
    judge = METRICS[name].judge
    assert judge is not None
    found = judge(answers, targets)
    assert tuple(found) == METRICS[name].names
    for value, low, high in found.values():
        assert 0 <= low <= value <= high <= 100
    return found


def test_squads_normalisation():
    assert normalised("The  cat, an Animal; isn't\nTHEATRE-a!") == "cat animal isnt theatrea"
    assert normalised("a the an") == ""
    assert normalised("“Zürich”") == "“zürich”"  # punctuation is that of ASCII


@pytest.mark.parametrize(
    ("answer", "target", "want"),
    [
        ("the cat sat", "a cat", 2 / 3),  # of [cat, sat] and [cat]: 1/2 and 1
        ("cat cat dog", "cat dog dog", 2 / 3),  # one cat and one dog of three on each side
        ("", "the", 1.0),
        ("", "x", 0.0),
        ("x", "y", 0.0),
    ],
)
def test_f1_of_words(answer, target, want):
    assert token_f1(answer, target) == pytest.approx(want)


def test_exact_match_and_f1_over_examples():
    # Of the third alone all is the same.
    assert judged("exact_match")["exact_match"].value == pytest.approx(20)
    # [dog runs on beach] in [dog is running on beach], [two men] in [two men are sitting],
    # all, nothing, [red car is fast] in [red car goes very fast today].
    by_hand = np.mean([2 * 3 / (4 + 5), 2 * 2 / (2 + 4), 1, 0, 2 * 3 / (4 + 6)])
    assert judged("f1")["f1"].value == pytest.approx(100 * by_hand)


def test_the_last_number():
    assert last_number("3 apples, so #### 1,234.50") == 1234.5
    assert last_number("none") is None
    found = judged(
        "last_number", ["it is 7.0", "18", "no", "5 or -3"], ["#### 7", "#### 81", "1", "-3"]
    )
    assert found["last_number"].value == 50


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (".5", 0.5),
        ("so -.5", -0.5),
        ("20-5", 5),
        ("x-5", 5),
        ("(3+4)-5", 5),
        ("20 - -5", -5),
        ("a year, 2020-05", 5),
        ("$-5.", -5),
        ("it is.5", 5),
    ],
)
def test_signs_and_points(text: str, number: float) -> None:
    assert last_number(text) == number


def test_bleu_and_chrf_are_the_librarys():
    stripped = [a.strip() for a in ANSWERS]
    bleu, chrf = (
        sacrebleu.corpus_bleu(stripped, [TARGETS]),
        sacrebleu.corpus_chrf(stripped, [TARGETS]),
    )
    assert judged("bleu")["bleu"].value == pytest.approx(bleu.score, abs=1e-9)
    assert judged("chrf")["chrf"].value == pytest.approx(chrf.score, abs=1e-9)
    assert 5 < bleu.score < chrf.score < 95


def test_bleu_by_hand():
    """One sentence: the precisions of 1 to 4 words, and the penalty of being too short."""
    found = judged("bleu", ["a b c d e"], ["a b c d f g"])["bleu"].value
    precisions = (4 / 5, 3 / 4, 2 / 3, 1 / 2)
    want = math.exp(1 - 6 / 5) * math.prod(precisions) ** (1 / 4)
    assert found == pytest.approx(100 * want)


def test_rouge_is_the_librarys():
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    scores = [scorer.score(t, a) for a, t in zip(ANSWERS, TARGETS, strict=True)]
    for name, estimate in judged("rouge").items():
        assert estimate.value == pytest.approx(100 * np.mean([s[name].fmeasure for s in scores]))
    # [two men] of [two men are sitting]: all of it, and half.
    alone = judged("rouge", ANSWERS[1:2], TARGETS[1:2])["rouge1"].value
    assert alone == pytest.approx(100 * 2 * 1 * 0.5 / 1.5)


def test_a_metric_that_there_is_not():
    metrics.check(METRICS)
    with pytest.raises(UserError, match="no metric is called 'blue': there is accuracy, exact_"):
        metrics.check(["f1", "blue"])


def test_a_library_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(UserError, match=r"a metric needs the package sacrebleu: `make setup TASKS"):
        metrics.check(["bleu"])
