"""A sequence of tokens of which some are learned, and what becomes of one that is too long."""

from collections.abc import Sequence as Several
from typing import Literal, NamedTuple

import numpy as np

TooLong = Literal["drop", "cut"]


class Sequence(NamedTuple):
    """What one document of a store is.

    Attributes:
      ids: uint32 [m].
      learned: bool [m], whether each is to be predicted; the first one, which nothing is before,
        is not.
      text_bytes: of text that the ids stand for.
    """

    ids: np.ndarray
    learned: np.ndarray
    text_bytes: int

    @property
    def positions(self) -> int:
        """Of a row: each token but the last is an input."""
        return self.ids.size - 1

    @property
    def prompt(self) -> tuple[int, ...]:
        """What stands before the first token that is learned."""
        return tuple(self.ids[: int(np.argmax(self.learned))].tolist())


def fitted(
    unit: Several[Sequence], length: int, bos_id: int, token_bytes: np.ndarray
) -> list[Sequence]:
    """Sequences that lie in a row together, shortened so that they fit.

    Tokens go from the left: after a BOS, and before the first that is learned, of which one stays.
    Of a pair both lose as many, since what they have in common is what they begin with.

    Args:
      unit: one, or the two of a pair.
      length: positions of a row.
      bos_id: of the tokenizer.
      token_bytes: int32 [V].

    Returns:
      the sequences; none where that is not enough.
    """
    excess = sum(one.positions for one in unit) - length
    if excess <= 0:
        return list(unit)
    cut = -(-excess // len(unit))
    made = []
    for ids, learned, text_bytes in unit:
        head = int(ids[0] == bos_id)
        if cut > int(np.argmax(learned)) - 1:
            return []
        gone = int(token_bytes[ids[head : head + cut]].sum())
        made.append(
            Sequence(
                np.concatenate([ids[:head], ids[head + cut :]]),
                np.concatenate([learned[:head], learned[head + cut :]]),
                max(text_bytes - gone, 0),
            )
        )
    return made
