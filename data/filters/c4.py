"""Rules by which C4 was cleaned (Raffel et al. 2020, section 2.2): all but the list of bad words,
the marks of citations, and sentences that are repeated over documents.

Lines that do not end like a sentence, have under five words, or speak of JavaScript, cookies or
terms of use go; a document goes if fewer than three sentences are left, or if it has a curly
bracket or "lorem ipsum". (Made for web pages: of prose with line breaks in it little stays.)
"""

import re
from collections import Counter
from pathlib import Path

from data.documents import Document
from data.filters.config import FilterConfig

_ENDS = (".", "!", "?", '"', "\u201d", "\u2019")
_LEAST_WORDS = 5
_LEAST_SENTENCES = 3
_UNWANTED = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_SENTENCE_END = re.compile(r"[.!?]+[\"\u201d\u2019)]*(?:\s|$)")


def make(config: FilterConfig, overlaps: Path | None) -> "C4 | None":
    """The filter, if it is on."""
    return C4() if config.c4 else None


class C4:
    """The filter."""

    def __call__(self, document: Document, counts: Counter[str]) -> Document | None:
        lowered = document.text.lower()
        for mark, reason in (("lorem ipsum", "lorem ipsum"), ("{", "curly bracket")):
            if mark in lowered:
                counts[f"dropped: c4, {reason}"] += 1
                return None
        lines = document.text.splitlines()
        kept = [line.strip() for line in lines if _stays(line.strip())]
        text = "\n".join(kept)
        if len(_SENTENCE_END.findall(text)) < _LEAST_SENTENCES:
            counts["dropped: c4, fewer than 3 sentences"] += 1
            return None
        counts["lines dropped: c4"] += len(lines) - len(kept)
        return document._replace(text=text)


def _stays(line: str) -> bool:
    if not line.endswith(_ENDS) or line.endswith("...") or len(line.split()) < _LEAST_WORDS:
        return False
    lowered = line.lower()
    return not any(words in lowered for words in _UNWANTED)
