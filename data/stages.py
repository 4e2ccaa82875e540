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
      from_step: the first of them.
      length: tokens of a row (T).
      rows: of a step (B).
      mixture: which corpora they are of.
    """

    from_step: int
    length: int
    rows: int
    mixture: Mixture


def stages_of(config: DataConfig, batch_size: int) -> tuple[Stage, ...]:
    """The stages of a run in their order; the first begins with step 0.

    Args:
      batch_size: of the steps whose stage says nothing else.

    Raises:
      ValueError: one line that names the field.
    """
    corpora = config.corpora()
    names = [corpus.name for corpus in corpora]
    try:
        first = Mixture([corpus.weight for corpus in corpora])
    except ValueError as error:
        raise ValueError(f"data.mixture: {error}") from None
    stages = [Stage(0, config.sequence_length, batch_size, first)]
    for name, one in sorted(config.stages.items(), key=lambda item: item[1].from_step):
        key = f"data.stages.{name}"
        length = one.sequence_length or config.sequence_length
        if config.sequence_length % length or length < 2:
            raise ValueError(
                f"{key}.sequence_length={length}: it must divide data.sequence_length="
                f"{config.sequence_length}, the longest rows of the run"
            )
        if one.from_step == stages[-1].from_step:
            raise ValueError(f"{key}.from_step={one.from_step}: another stage begins there")
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
        stages.append(Stage(one.from_step, length, one.batch_size or batch_size, mixture))
    return tuple(stages)


def at(stages: Sequence[Stage], step: int) -> int:
    """The index of the stage that a step is in."""
    return bisect.bisect_right(stages, step, key=lambda stage: stage.from_step) - 1


Skipped = dict[int, set[int] | None]  # of each step, the rows; None is all of them

_ENTRY = re.compile(r"(\d+)(?::(\d+)(?:-(\d+))?)?")


def skipped(entries: Iterable[str], stages: Sequence[Stage]) -> Skipped:
    """The rows that are not learnt from.

    Args:
      entries: "1200" (a step), "1205:3" (a row of it) or "1205:3-5" (rows 3, 4 and 5).

    Raises:
      ValueError: one line that names the entry.
    """
    found: Skipped = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"data.skip: {entry!r}: give 'STEP', 'STEP:ROW' or 'STEP:FIRST-LAST'")
        step = int(match[1])
        if match[2] is None:
            found[step] = None
            continue
        low, high = int(match[2]), int(match[3] or match[2])
        there = stages[at(stages, step)].rows
        if not low <= high < there:
            raise ValueError(f"data.skip: {entry!r}: step {step} has rows 0 to {there - 1}")
        already = found.setdefault(step, set())
        if already is not None:
            already.update(range(low, high + 1))
    return found
