"""Parts of a split.

By hash, where the documents are not counted before they are read: "train[:10%]" are the documents
whose names have a hash in the first tenth of its range. A document is in or out whatever else is
there, so documents that are added move no other. By count (`select`), where they are few.
"""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeVar

from data.documents import NO_SPLIT, line_of
from errors import UserError

T = TypeVar("T")
_HASHES = 1 << 64
_BOUND = r"(?:(-?\d[\d_]*(?:\.\d+)?)(%|shard|))?"
_PART = re.compile(rf"([\w.-]+?)(?:\[{_BOUND}:{_BOUND}\])?")


class Part(NamedTuple):
    """The documents of a whole split with low <= hash of their name < high."""

    split: str
    low: int
    high: int

    @property
    def is_whole(self) -> bool:
        return (self.low, self.high) == (0, _HASHES)

    def holds(self, name: str) -> bool:
        return self.is_whole or self.low <= hash_of(name) < self.high


def hash_of(name: str) -> int:
    """A number from 0 to 2**64 - 1, the same wherever and whenever it is computed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def parse(split: str, available: Sequence[str], where: str, otherwise: str = "") -> list[Part]:
    """The parts of an expression such as "train[:10%]+validation", in the order written.

    Args:
      available: the whole splits.
      where: the source, for messages.
      otherwise: what else the user may do, for messages.

    Raises:
      UserError: it is no such expression, or its parts overlap.
    """
    parts: list[Part] = []
    for written in split.split("+"):
        found = _PART.fullmatch(written.strip())
        if found is None or found[1] not in available:
            raise UserError(
                f"{where} has no documents for split {split!r}: use "
                f"{', '.join(map(repr, available))}, parts of them by percent, as "
                f"'{available[0]}[:10%]', or a sum of such with '+'{otherwise}"
            )
        if (found[2] and found[3] != "%") or (found[4] and found[5] != "%"):
            raise UserError(
                f"split {split!r} of {where} counts documents, and they are not counted before "
                f"they are read: give percents, as '{available[0]}[:10%]'"
            )
        low, high = _place(found[2], 0), _place(found[4], 100)
        if low >= high:
            raise UserError(f"{where} has no documents for split {split!r}: {written!r} is empty")
        part = Part(found[1], low, high)
        for other in parts:
            if other.split == part.split and other.low < part.high and part.low < other.high:
                raise UserError(
                    f"split {split!r} of {where} names documents twice: make its parts apart"
                )
        parts.append(part)
    return parts


def _place(percent: str | None, default: int) -> int:
    value = _percent(percent) if percent else Fraction(default)
    return int(value * _HASHES / 100)


def _percent(written: str) -> Fraction:
    """From 0 to 100; what has a minus is counted from the end."""
    value = Fraction(written) + (100 if written.startswith("-") else 0)
    return min(max(value, Fraction(0)), Fraction(100))


def check_apart(train: str, evaluation: str, where: str) -> None:
    """Refuses to train on what is evaluated on, as far as the expressions alone tell it.

    They do not where bounds are counted in different ways, as in "train[:90%]" and "train[-5:]".

    Args:
      where: the source, for messages.

    Raises:
      UserError: the splits share documents.
    """
    if evaluation == NO_SPLIT:
        return
    for pair in itertools.product(train.split("+"), evaluation.split("+")):
        one, other = (_PART.fullmatch(written.strip()) for written in pair)
        if one and other and _share(one, other):
            raise UserError(
                f"data.train_split={train!r} and data.eval_split={evaluation!r} of {where} share "
                "documents: make them apart"
            )


class _Bound(NamedTuple):
    """Where a part begins or ends.

    Attributes:
      unit: what is counted, "%", "shard" or "" (documents); of the latter two with "-" before it
        where they are counted from the end.
    """

    unit: str
    value: Fraction


_BEGIN, _END = _Bound("%", Fraction(0)), _Bound("%", Fraction(100))


def _share(one: re.Match[str], other: re.Match[str]) -> bool:
    if one[1] != other[1]:
        return "all" in (one[1], other[1])  # it has the documents of every split
    (low, high), (low_of_other, high_of_other) = _range(one), _range(other)
    return _is_before(low, high_of_other) and _is_before(low_of_other, high)


def _range(part: re.Match[str]) -> tuple[_Bound, _Bound]:
    return _bound(part[2], part[3], _BEGIN), _bound(part[4], part[5], _END)


def _bound(written: str | None, unit: str | None, default: _Bound) -> _Bound:
    if written is None or unit is None:
        return default
    if unit == "%":
        return _Bound(unit, _percent(written))
    value = Fraction(written)
    if not value:
        return _BEGIN
    return _Bound(f"-{unit}" if value < 0 else unit, value)


def _is_before(low: _Bound, high: _Bound) -> bool:
    """Whether that is certain: how many documents there are is not known."""
    if low == _BEGIN or high == _END:
        return low != high
    return low.unit == high.unit and low.value < high.value


def select(split: str, available: Mapping[str, Sequence[T]], where: str) -> list[T]:
    """What a TFDS split expression, such as "train[:20%]+validation[5:]", chooses.

    Args:
      available: the whole splits.
      where: the source, for messages.

    Raises:
      UserError: there is no such split, or there is nothing in it.
    """
    import tensorflow_datasets as tfds  # takes a second, which a warm start does not spend

    lengths = {key: _Length(len(documents)) for key, documents in available.items()}
    why = "it is empty"
    try:
        asked = tfds.core.ReadInstruction.from_spec(split).to_absolute(lengths)
    except (ValueError, AssertionError, NotImplementedError) as error:  # all three are TFDS's
        why = line_of(error)
        asked = []
    chosen = [x for part in asked for x in available[part.splitname][part.from_ : part.to]]
    if not chosen:
        there = ", ".join(f"{key} ({len(d):,} documents)" for key, d in available.items())
        raise UserError(
            f"{where} has no documents for split {split!r} ({why}): its splits are {there}"
        )
    return chosen


@dataclass(frozen=True)
class _Length:
    """What TFDS asks of a split to resolve an expression."""

    num_examples: int

    @property
    def shard_lengths(self) -> list[int]:
        return [self.num_examples]
