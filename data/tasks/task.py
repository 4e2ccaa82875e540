"""What a task is: records of a source, and the example that each is.

record (fields of JSON) -> Example | Dialogue | Pair -> tokens, of which some are learned
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Example(NamedTuple):
    """An input, and what is to follow it. There is nothing between the two: white space that is to
    be there stands in one of them.
    """

    inputs: str
    targets: str


class Dialogue(NamedTuple):
    """Messages, {"role", "content"} and what else the tokenizer's chat template knows. What the
    "assistant" says is learned.
    """

    messages: tuple[Mapping[str, Any], ...]


class Pair(NamedTuple):
    """An input, and an answer that is better than another."""

    inputs: str
    chosen: str
    rejected: str


Record = Mapping[str, Any]
Made = Example | Dialogue | Pair
Fields = Callable[[Record], Made | None]
"""Makes an example of a record; None where the record is not of the task. A field that is missing
is a KeyError, a value that cannot be a ValueError: who calls it says where."""


@dataclass(frozen=True)
class Task:
    """Attributes:
    source, train_split, eval_split: of the data (see DataConfig) where the config leaves them open.
    fields: makes an example of a record.
    chat: it makes dialogues, which need a tokenizer with a chat template.
    pairs: it makes pairs, which are judged by which of the two answers is the likelier.
    labels: the texts that targets are one of, if they are; another is refused.
    metrics: how answers are judged: names of evaluation/metrics.py.
    max_tokens: of an answer that is drawn.
    """

    source: str
    fields: Fields
    train_split: str = "train.jsonl.gz"
    eval_split: str = "val.jsonl.gz"
    chat: bool = False
    pairs: bool = False
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    max_tokens: int = 64
