"""Reads sources as preparation does."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import pytest

from data import sources
from data.documents import Document, Shard, Source
from errors import UserError


@dataclass(frozen=True)
class Config:
    """What a source may know."""

    data_dir: str = ""
    text_key: str = "text"
    train_split: str = "train"
    eval_split: str = "validation"
    invalid_utf8: Literal["refuse", "replace"] = "refuse"


def silent(what: str, done: int, total: int) -> None:
    pass


def find(source: str, **fields: Any) -> Source:
    return sources.find(source, Config(**fields), silent)


def read(source: str, split: str = "train+validation", **fields: Any) -> list[Document]:
    return [d for shard in find(source, **fields).shards(split) for d in checked(shard)]


def checked(shard: Shard) -> list[Document]:
    """The documents of a shard that was pickled, from every start; sizes read only grow."""
    shard = pickle.loads(pickle.dumps(shard))
    both = list(shard.documents())
    assert len({document.id for document, _ in both}) == len(both)
    amounts = [amount for _, amount in both]
    assert amounts == sorted(amounts) and all(0 <= a <= shard.size for a in amounts)
    for start in {0, 1, len(both) // 2, len(both) - 1, len(both), len(both) + 3} - {-1}:
        assert list(shard.documents(start)) == list(islice(both, start, None))
    assert shard.name
    return pickle.loads(pickle.dumps([document for document, _ in both]))


def refused(match: str, action: Callable[..., object], *arguments: Any, **fields: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        action(*arguments, **fields)
    assert "\n" not in str(error.value)
