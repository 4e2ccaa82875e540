"""The rules of Gopher for quality and repetition (Rae et al. 2021, section A.1.1, table A1)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.documents import Document
from data.filters.config import FilterConfig

_STOP_WORDS = frozenset("the be to of and that have with".split())
_BULLETS = ("\u2022", "\u2023", "\u25cf", "-", "*")
_ELLIPSES = ("...", "\u2026")
_MOST_WORDS = 100_000
_TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # characters in the commonest n-gram
_REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # in all that come again


def make(config: FilterConfig, overlaps: Path | None) -> "Gopher | None":
    """The filter, if it is on."""
    return Gopher() if config.gopher else None


class Gopher:
    """The filter. A document goes by the first rule that it breaks."""

    def __call__(self, document: Document, counts: Counter[str]) -> Document | None:
        for reason in broken(document.text):
            counts[f"dropped: gopher, {reason}"] += 1
            return None
        return document


def broken(text: str) -> Iterator[str]:
    """The rules that a text breaks, in their order."""
    words = text.split(maxsplit=_MOST_WORDS)  # a very long document is not cut up whole
    if not 50 <= len(words) <= _MOST_WORDS:
        yield "words outside 50 to 100,000"
    if not words or len(words) > _MOST_WORDS:
        return
    if not 3 <= sum(map(len, words)) / len(words) <= 10:
        yield "mean word length outside 3 to 10"
    for symbol, marks in (("#", ("#",)), ("ellipsis", _ELLIPSES)):
        if sum(text.count(mark) for mark in marks) / len(words) > 0.1:
            yield f"more than one {symbol} in ten words"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if sum(line.startswith(_BULLETS) for line in lines) > 0.9 * len(lines):
        yield "bullets in over 90% of lines"
    if sum(line.endswith(_ELLIPSES) for line in lines) > 0.3 * len(lines):
        yield "ellipses at the end of over 30% of lines"
    if sum(any(c.isalpha() for c in word) for word in words) < 0.8 * len(words):
        yield "letters in under 80% of words"
    if len(_STOP_WORDS.intersection(word.lower() for word in words)) < 2:
        yield "fewer than two stop words"
    yield from _repetitions(text, lines, words)


def _repetitions(text: str, lines: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    for name, parts in (("lines", lines), ("paragraphs", paragraphs)):
        again = _again(parts)
        if len(again) > 0.3 * len(parts):
            yield f"over 30% of {name} repeated"
        if sum(map(len, again)) > 0.2 * len(text):
            yield f"over 20% of characters in repeated {name}"
    characters = sum(map(len, words))
    for n, most in _TOP.items():
        grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
        gram, times = grams.most_common(1)[0] if grams else ((), 0)
        if times > 1 and times * sum(map(len, gram)) > most * characters:
            yield f"the commonest {n}-gram over {most:.0%} of characters"
    for n, most in _REPEATED.items():
        if _repeated_characters(words, n) > most * characters:
            yield f"repeated {n}-grams over {most:.0%} of characters"


def _again(parts: Sequence[str]) -> list[str]:
    """The parts that are equal to an earlier one."""
    seen: set[str] = set()
    again = []
    for part in parts:
        if part in seen:
            again.append(part)
        seen.add(part)
    return again


def _repeated_characters(words: Sequence[str], n: int) -> int:
    """Characters of words in n-grams that were there before; none is counted twice."""
    seen: set[tuple[str, ...]] = set()
    total = end = 0
    for start in range(len(words) - n + 1):
        gram = tuple(words[start : start + n])
        if gram in seen:
            total += sum(map(len, words[max(start, end) : start + n]))
            end = start + n
        seen.add(gram)
    return total
