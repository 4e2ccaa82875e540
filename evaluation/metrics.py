"""How good answers are: one row of a table for each metric, which a task names.

All go from 0 to 100, with an interval of 95 % (evaluation/intervals.py): Wilson's where an example
is right or wrong, the bootstrap's elsewhere.
"""

import importlib
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from errors import UserError
from evaluation import intervals
from evaluation.intervals import Estimate

Judge = Callable[[Sequence[str], Sequence[str]], dict[str, Estimate]]
"""Given answers and what they should have been, at least one, returns estimates by name."""


class Metric(NamedTuple):
    """Attributes:
    judge: of texts that were drawn; None where it is the likelihood of labels that counts.
    names: of what it gives.
    """

    judge: Judge | None
    names: tuple[str, ...]


_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
# A sign belongs to it where nothing is before that it could be taken from: 20-5 ends in 5.
_NUMBER = re.compile(r"(?:(?<![\w)])[-+])?(?:\d[\d,]*(?:\.\d+)?|(?<!\w)\.\d+)")


def normalised(text: str) -> str:
    """As SQuAD's evaluation has it (Rajpurkar et al. 2016): lower case, without punctuation (of
    ASCII) and articles, words with one space between them."""
    bare = "".join(c for c in text.lower() if c not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def token_f1(answer: str, target: str) -> float:
    """SQuAD's F1 of the words that both have, each as often as both; of two empty texts 1."""
    ours, theirs = normalised(answer).split(), normalised(target).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def last_number(text: str) -> float | None:
    """The last number in a text; None if there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _exact_match(answers: Sequence[str], targets: Sequence[str]) -> dict[str, Estimate]:
    hits = (normalised(a) == normalised(t) for a, t in zip(answers, targets, strict=True))
    return {"exact_match": _share(hits, len(answers))}


def _last_number(answers: Sequence[str], targets: Sequence[str]) -> dict[str, Estimate]:
    pairs = ((last_number(a), last_number(t)) for a, t in zip(answers, targets, strict=True))
    return {"last_number": _share((a is not None and a == t for a, t in pairs), len(answers))}


def _f1(answers: Sequence[str], targets: Sequence[str]) -> dict[str, Estimate]:
    values = [token_f1(a, t) for a, t in zip(answers, targets, strict=True)]
    return {"f1": intervals.of_mean(np.array(values))}


def _bleu(answers: Sequence[str], targets: Sequence[str]) -> dict[str, Estimate]:
    return {"bleu": _by_sacrebleu(_library("sacrebleu").metrics.BLEU(), answers, targets)}


def _chrf(answers: Sequence[str], targets: Sequence[str]) -> dict[str, Estimate]:
    return {"chrf": _by_sacrebleu(_library("sacrebleu").metrics.CHRF(), answers, targets)}


def _by_sacrebleu(metric: Any, answers: Sequence[str], targets: Sequence[str]) -> Estimate:
    # These two are private. In public there is a bootstrap of the library's own, whose result is
    # private in its turn, and whose draws are those of NumPy's generators.
    statistics = metric._extract_corpus_statistics(
        [answer.strip() for answer in answers], [[target.strip() for target in targets]]
    )
    return intervals.of_sums(
        np.array(statistics, dtype=np.int64),
        lambda sums: float(metric._compute_score_from_stats(sums.tolist()).score),
    )


_ROUGE = ("rouge1", "rouge2", "rougeL")


def _rouge(answers: Sequence[str], targets: Sequence[str]) -> dict[str, Estimate]:
    """F-measures; words as the library cuts them, without stemming."""
    scorer = _library("rouge_score.rouge_scorer").RougeScorer(list(_ROUGE))
    pairs = zip(answers, targets, strict=True)
    found = [scorer.score(target, answer) for answer, target in pairs]
    return {
        name: intervals.of_mean(np.array([one[name].fmeasure for one in found])) for name in _ROUGE
    }


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(None, ("accuracy", "accuracy_per_token")),
    "exact_match": Metric(_exact_match, ("exact_match",)),
    "f1": Metric(_f1, ("f1",)),
    "last_number": Metric(_last_number, ("last_number",)),
    "bleu": Metric(_bleu, ("bleu",)),
    "chrf": Metric(_chrf, ("chrf",)),
    "rouge": Metric(_rouge, _ROUGE),
}
"""By name in a task: SQuAD's exact match and F1 of words; whether the last number is the right one
(GSM8K's); BLEU and chrF by sacrebleu; ROUGE by rouge-score."""


def check(names: Iterable[str]) -> None:
    """Refuses metrics that there are not, or whose library is not there, before anything is drawn.

    Raises:
      UserError: if so.
    """
    for name in names:
        if name not in METRICS:
            raise UserError(f"no metric is called {name!r}: there is {', '.join(METRICS)}")
        if name in ("bleu", "chrf"):
            _library("sacrebleu")
        if name == "rouge":
            _library("rouge_score.rouge_scorer")


def _share(hits: Iterable[bool], examples: int) -> Estimate:
    return intervals.of_share(sum(hits), examples)


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise  # it is there, and lacks something itself
        package = error.name.split(".")[0].replace("_", "-")
        raise UserError(f"a metric needs the package {package}: `make setup TASKS=1`") from error
