"""Which language a document is in, as py3langid tells it (Lui and Baldwin 2012)."""

from collections import Counter
from pathlib import Path

from data import packages
from data.documents import Document
from data.filters.config import INSTALL, FilterConfig
from errors import UserError

_LOOKED_AT = 20_000  # characters: more does not change the answer


def make(config: FilterConfig, overlaps: Path | None) -> "Language | None":
    """The filter, if it is on.

    Raises:
      UserError: py3langid is not there, or knows no such language.
    """
    if not config.languages:
        return None
    return Language(config.languages, config.language_probability)


class Language:
    """The filter.

    Args:
      languages: that stay, as ISO 639-1 codes.
      probability: the least that one of them must have.
    """

    def __init__(self, languages: tuple[str, ...], probability: float) -> None:
        langid = packages.needed(
            "py3langid.langid", "py3langid", "config.data.filters.languages", INSTALL
        )
        self._identifier = langid.LanguageIdentifier.from_model_file(
            langid.MODEL_FILE, norm_probs=True
        )
        known = set(self._identifier.labels)
        for language in languages:
            if language not in known:
                raise UserError(
                    f"config.data.filters.languages has {language!r}, which py3langid does not "
                    f"know: it knows {', '.join(sorted(known))}"
                )
        self._languages, self._probability = frozenset(languages), probability

    def __call__(self, document: Document, counts: Counter[str]) -> Document | None:
        language, probability = self._identifier.classify(document.text[:_LOOKED_AT])
        if language not in self._languages:
            counts["dropped: language"] += 1
            return None
        if probability < self._probability:
            counts["dropped: language not sure"] += 1
            return None
        return document
