"""Shards that tests hand to a build."""

import itertools
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Records:
    """Records that are at hand, as a source gives them to a task.

    Attributes:
      kill_at, kill: as of Texts.
    """

    records: Sequence[Mapping[str, Any]]
    first: int = 0
    kill_at: int = -1
    kill: Path | None = None

    @property
    def name(self) -> str:
        return f"records from {self.first}"

    @property
    def size(self) -> int:
        return len(self.records)

    def documents(self, start: int = 0) -> Iterator[tuple[Document, int]]:
        for i, record in enumerate(self.records[start:], start):
            if i == self.kill_at and self.kill is not None and self.kill.exists():
                self.kill.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            yield Document(f"r{self.first + i}", "", record), i + 1


def cut(texts: Sequence[str], shards: int) -> list[Texts]:
    """The texts in so many shards, in order."""
    bounds = [len(texts) * i // shards for i in range(shards + 1)]
    return [Texts(texts[a:b], f"shard {a}:{b}", a) for a, b in itertools.pairwise(bounds)]
