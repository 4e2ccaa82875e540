"""Personal data becomes marks, as presidio's recognizers find it.

Each recognizer works by patterns and check sums; spaCy, which presidio brings, is given no model,
and nothing is downloaded: the list of domain suffixes is the one that comes with its package.
Phone numbers take about ten seconds a megabyte, the others much less.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data import packages
from data.documents import Document
from data.filters.config import INSTALL, FilterConfig

_KINDS = {  # our name: presidio's recognizer and entity
    "email": ("EmailRecognizer", "EMAIL_ADDRESS"),
    "phone": ("PhoneRecognizer", "PHONE_NUMBER"),
    "card": ("CreditCardRecognizer", "CREDIT_CARD"),
    "ip": ("IpRecognizer", "IP_ADDRESS"),
    "iban": ("IbanRecognizer", "IBAN_CODE"),
}
_LEAST_SCORE = 0.35
_PART = 1 << 17  # characters


def make(config: FilterConfig, overlaps: Path | None) -> "Personal | None":
    """The filter, if it is on.

    Raises:
      UserError: presidio is not there.
    """
    return Personal(config.mask) if config.mask else None


class Personal:
    """The filter.

    Args:
      kinds: of personal data, of `config.MASKS`.
    """

    def __init__(self, kinds: tuple[str, ...]) -> None:
        why = "config.data.filters.mask"
        recognizers = packages.needed(
            "presidio_analyzer.predefined_recognizers", "presidio-analyzer", why, INSTALL
        )
        tldextract = packages.needed("tldextract", "tldextract", why, INSTALL)
        own = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
        setattr(tldextract, "extract", own)  # noqa: B010 - what the recognizer of addresses calls
        self._recognizers: list[tuple[str, str, Any]] = []
        for kind in kinds:
            name, entity = _KINDS[kind]
            self._recognizers.append((kind, entity, getattr(recognizers, name)()))

    def __call__(self, document: Document, counts: Counter[str]) -> Document | None:
        before = counts.total()
        masked = [self._masked(part, counts) for part in _parts(document.text)]
        return document if counts.total() == before else document._replace(text="".join(masked))

    def _masked(self, text: str, counts: Counter[str]) -> str:
        found = [
            (result.start, -result.end, kind)
            for kind, entity, recognizer in self._recognizers
            for result in recognizer.analyze(text, [entity], None)
            if result.score >= _LEAST_SCORE
        ]
        if not found:
            return text
        parts: list[str] = []
        at = 0
        for start, minus_end, kind in sorted(found):  # the longest of those that begin together
            if start >= at:
                parts += [text[at:start], f"<{kind.upper()}>"]
                counts[f"masked: {kind}"] += 1
            at = max(at, -minus_end)  # what overlaps is under the mark of what began before it
        return "".join([*parts, text[at:]])


def _parts(text: str) -> Iterator[str]:
    """The text in parts that end where a line does: presidio gives up on a pattern after a time."""
    start = 0
    while len(text) - start > _PART:
        end = text.rfind("\n", start, start + _PART) + 1 or start + _PART
        yield text[start:end]
        start = end
    yield text[start:]
