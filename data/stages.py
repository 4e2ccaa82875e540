"""What the rows of each step are, in the course of a run; and the rows to leave out."""

import bisect
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from data.config import DataConfig
from data.mixture import Mixture


class Stage(NamedTuple):
    """Steps of one kind.

    Attributes:
      after_step: how many are done when it begins.
      length: tokens of a row (T).
      rows: of a step (B).
      mixture: which corpora they are of.
    """

    after_step: int
    length: int
    rows: int
    mixture: Mixture


def stages_of(
    config: DataConfig, batch_size: int, weights: Sequence[float] | None = None
) -> tuple[Stage, ...]:
    """The stages of a run in their order; the first begins with step 0.

    Args:
      batch_size: of the steps whose stage says nothing else.
      weights: of the corpora at the beginning; the config's if not given.

    Raises:
      ValueError: one line that names the field.
    """
    corpora = config.corpora()
    names = [corpus.name for corpus in corpora]
    try:
        first = Mixture(weights or [corpus.weight for corpus in corpora])
    except ValueError as error:
        raise ValueError(f"data.mixture: {error}") from None
    stages = [Stage(0, config.sequence_length, batch_size, first)]
    for name, one in sorted(config.stages.items(), key=lambda item: item[1].after_step):
        key = f"data.stages.{name}"
        length = one.sequence_length or config.sequence_length
        if config.sequence_length % length or length < 2:
            raise ValueError(
                f"{key}.sequence_length={length}: it must divide data.sequence_length="
                f"{config.sequence_length}, the longest rows of the run"
            )
        if one.after_step == stages[-1].after_step:
            raise ValueError(f"{key}.after_step={one.after_step}: another stage begins there")
        for corpus in one.weights:
            if corpus not in names:
                near = difflib.get_close_matches(corpus, names, n=1) or names
                raise ValueError(
                    f"{key}.weights.{corpus}: no such corpus; there is {', '.join(near)}"
                )
        try:
            mixture = Mixture([one.weights.get(n, 0.0) for n in names]) if one.weights else first
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        stages.append(Stage(one.after_step, length, one.batch_size or batch_size, mixture))
    return tuple(stages)


def at(stages: Sequence[Stage], step: int) -> int:
    """The index of the stage that a step is in."""
    return bisect.bisect_right(stages, step, key=lambda stage: stage.after_step) - 1


Skipped = dict[int, set[int]]  # the rows, by the steps that are done before

_ENTRY = re.compile(r"(\d+)(?::(\d+)(?:-(\d+))?)?")


def skipped(entries: Iterable[str], stages: Sequence[Stage]) -> Skipped:
    """The rows that are not learnt from.

    Args:
      entries: "1200" (a step, counted from 1 as in the metrics), "1205:3" (a row of it) or
        "1205:3-5" (rows 3, 4 and 5).

    Returns:
      by the steps that are done before.

    Raises:
      ValueError: one line that names the entry.
    """
    found: Skipped = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"data.skip: {entry!r}: give 'STEP', 'STEP:ROW' or 'STEP:FIRST-LAST'")
        number = int(match[1])
        if not number:
            raise ValueError(f"data.skip: {entry!r}: the first step is 1")
        there = stages[at(stages, number - 1)].rows
        low = int(match[2] or 0)
        high = there - 1 if match[2] is None else int(match[3] or low)
        if low > high:
            raise ValueError(f"data.skip: {entry!r}: give the first row, then the last")
        if high >= there:
            raise ValueError(f"data.skip: {entry!r}: step {number} has rows 0 to {there - 1}")
        found.setdefault(number - 1, set()).update(range(low, high + 1))
    return found
