"""Shards that tests hand to a build."""

import itertools
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.documents import Document


@dataclass(frozen=True)
class Texts:
    """Documents that are at hand.

    Attributes:
      kill_at: a worker that comes to this document is killed, if `kill` is there; `kill` goes.
    """

    texts: Sequence[str]
    name: str = "texts"
    first: int = 0
    kill_at: int = -1
    kill: Path | None = None

    @property
    def size(self) -> int:
        return sum(map(len, self.texts))

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        read = sum(map(len, self.texts[:start]))
        for i, text in enumerate(self.texts[start:], start):
            if i == self.kill_at and self.kill is not None and self.kill.exists():
                self.kill.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            read += len(text)
            yield Document(f"d{self.first + i}", text), read


def cut(texts: Sequence[str], shards: int) -> list[Texts]:
    """The texts in so many shards, in order."""
    bounds = [len(texts) * i // shards for i in range(shards + 1)]
    return [Texts(texts[a:b], f"shard {a}:{b}", a) for a, b in itertools.pairwise(bounds)]
