"""Splits of documents that are told apart by their names: no document has to be counted.

"train" and "validation" are by a hash of the name, and so is a part of them: "train[:10%]" has the
tenth of the documents whose hash is lowest. So documents that are added move no other.
"""

import hashlib
import re
from dataclasses import dataclass

from errors import UserError

VALIDATION_ONE_IN = 20  # documents
_PART = re.compile(r"(\w+)(?:\[(?:(\d+)%)?:(?:(\d+)%)?\])?")


@dataclass(frozen=True)
class Part:
    """Of a split, the documents whose hash is in [low, high) percent."""

    split: str
    low: int
    high: int


def parse(text: str, source: str, otherwise: str = "") -> tuple[Part, ...]:
    """The parts that "train[:10%]+validation" names.

    Args:
      text: the split.
      source: for messages.
      otherwise: what else may be given, for messages.

    Raises:
      UserError: it is no such text.
    """
    parts = []
    for one in text.split("+"):
        match = _PART.fullmatch(one.strip())
        low, high = (int(match[2] or 0), int(match[3] or 100)) if match else (0, 0)
        if match is None or match[1] not in ("train", "validation") or not low < high <= 100:
            raise UserError(
                f"{source} has no split {text!r}: give 'train' or 'validation', or percents of "
                f"them such as 'train[:10%]'{otherwise}"
            )
        parts.append(Part(match[1], low, high))
    return tuple(parts)


def within(part: Part, name: str) -> bool:
    """Whether a document of `part.split` is in that part of it."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[8:16], "big")
    return part.low <= 100 * place >> 64 < part.high


def split_of(name: str) -> str:
    """The split that a document is in, by its name."""
    digest = hashlib.sha256(name.encode()).digest()
    held_back = int.from_bytes(digest[:8], "big") % VALIDATION_ONE_IN == 0
    return "validation" if held_back else "train"


def chosen(parts: tuple[Part, ...], name: str) -> bool:
    """Whether a document is in one of the parts, its split being that of its name."""
    here = split_of(name)
    return any(part.split == here and within(part, name) for part in parts)
