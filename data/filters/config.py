"""What to leave out of the text that is trained on, or to mask in it."""

from dataclasses import dataclass

INSTALL = "make setup FILTERS=1"  # brings the packages that some filters are made of
MASKS = ("card", "email", "iban", "ip", "phone")


@dataclass(frozen=True)
class FilterConfig:
    """Filters of the documents that are trained on; all are off by default.

    Evaluation splits are never filtered. What was left out, and why, is counted in the manifest of
    the store.

    Attributes:
      c4: the rules of C4 (data/filters/c4.py): lines that are no sentences go, and documents of
        which too little is left.
      gopher: the rules of Gopher (data/filters/gopher.py) for quality and repetition.
      languages: ISO 639-1 codes, such as "en"; documents in others go.
      language_probability: the least, of one of those languages, that py3langid has to give.
      mask: kinds of personal data that become a mark such as <EMAIL>: "email", "phone", "card",
        "ip", "iban".
      decontaminate: words of an n-gram that, also in a document that is evaluated on, makes a
        document go (Brown et al. 2020 take 13); 0 is off.
      exact_duplicates: of documents with the same text only the first stays.
      near_duplicates: of documents whose 5-word shingles have this Jaccard similarity or more, as
        MinHash estimates it, only the first stays: 0.5 to 0.98, or 0, which is off.
    """

    c4: bool = False
    gopher: bool = False
    languages: tuple[str, ...] = ()
    language_probability: float = 0.8
    mask: tuple[str, ...] = ()
    decontaminate: int = 0
    exact_duplicates: bool = False
    near_duplicates: float = 0.0

    def __post_init__(self) -> None:
        for kind in self.mask:
            if kind not in MASKS:
                raise ValueError(f"mask has {kind!r}: choose of {', '.join(MASKS)}")
        if not 0 <= self.language_probability <= 1:
            raise ValueError(
                f"language_probability={self.language_probability}: must lie in [0, 1]"
            )
        if self.near_duplicates and not 0.5 <= self.near_duplicates <= 0.98:
            raise ValueError(
                f"near_duplicates={self.near_duplicates}: use 0.5 to 0.98, or 0 for none; "
                "exact_duplicates finds those that are the same"
            )
        if self.decontaminate < 0:
            raise ValueError(f"decontaminate={self.decontaminate}: must not be negative")


OFF = FilterConfig()
"""No filter at all."""
