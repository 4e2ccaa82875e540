"""The examples of a task that a model is judged by: what it is asked, and what it should answer."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import sources, tasks
from data.config import Corpus
from data.documents import Document, Progress
from data.examples import chat, limits, rendering
from data.examples.chat import Chat
from data.tasks.task import Dialogue, Example, Pair
from data.tokenizer import Tokenizer
from errors import UserError


class Case(NamedTuple):
    """Attributes:
    name: of its document.
    asked: as text; of a dialogue what its template makes of it.
    ids: of what is asked, with all that begins it.
    target: what should be answered.
    label: its number among the task's; -1 where the task has none.
    """

    name: str
    asked: str
    ids: tuple[int, ...]
    target: str
    label: int


class Reading(NamedTuple):
    """How cases are read.

    Attributes:
      tokenizer: of the model.
      path: of that tokenizer; dialogues are written as the chat template beside it says.
      template: a file with another chat template; "" is that one.
      examples: of a task, at most so many, as many of each label as of another as far as there are
        so many, in an order that is always the same; 0 is all.
    """

    tokenizer: Tokenizer
    path: str
    template: str
    examples: int


def read(
    corpus: Corpus,
    split: str,
    how: Reading,
    progress: Progress = lambda what, done, total: None,
) -> list[Case]:
    """Cases of a split, in its order.

    Args:
      corpus: with a task.
      split: of it.
      how: they are read.
      progress: see data.documents.Progress.

    Raises:
      UserError: a record that no example can be made of, by its name; there is none at all; or the
        task has dialogues, and the model no chat template.
    """
    task = tasks.find(corpus.task)
    talk = _chat(how) if task.chat else None
    numbers = {label: number for number, label in enumerate(task.labels)}
    found: list[tuple[Document, Any, int]] = []
    source = sources.find(corpus.source, corpus, progress)
    for shard in source.shards(split):
        for document, _ in shard.documents():
            made = rendering.example_of(task, corpus.task, document)
            label = -1
            match made:
                case None:
                    continue
                case Pair():
                    raise UserError(
                        f"{corpus.task!r} is a task of pairs, which have no one answer to be "
                        "judged by: train.py says how often the better one is the likelier"
                    )
                case Example() if numbers:
                    if made.targets not in numbers:
                        what = f"its answer {made.targets!r} is none of the task's labels"
                        raise rendering.refused(corpus.task, document, what)
                    label = numbers[made.targets]
            found.append((document._replace(metadata={}), made, label))
    if not found:
        raise UserError(f"{source.name}, split {split!r}, has no example of task {corpus.task!r}")
    chosen = [found[i] for i in _chosen(found, how.examples)]
    plain = [made.inputs for _, made, _ in chosen if isinstance(made, Example)]
    inputs = iter(how.tokenizer.encode_batch(plain))
    cases = []
    for document, made, label in chosen:
        if isinstance(made, Dialogue):
            cases.append(_last_answer(corpus.task, talk, document, made))
        else:
            ids = (how.tokenizer.bos_id, *map(int, next(inputs)))
            cases.append(Case(document.id, made.inputs, ids, made.targets, label))
    return cases


def _chosen(found: Sequence[tuple[Document, Any, int]], examples: int) -> list[int]:
    """Places of those that are chosen, in order."""
    if not examples or examples >= len(found):
        return list(range(len(found)))
    names = [document.id for document, _, _ in found]
    labels = np.array([label for _, _, label in found])
    stays = limits.chosen(names, labels, examples, purpose="judge")
    return list(map(int, np.flatnonzero(stays)))


def _chat(how: Reading) -> Chat:
    files = chat.files_of(how.tokenizer, how.path, how.template)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return Chat(Path(folder))


def _last_answer(task: str, talk: Chat | None, document: Document, made: Dialogue) -> Case:
    """The last answer of a dialogue, and all before it."""
    if talk is None:
        raise rendering.refused(task, document, "it is a dialogue: let its Task say chat=True")
    turns = [i for i, one in enumerate(made.messages) if one["role"] == chat.ASSISTANT]
    target = made.messages[turns[-1]].get("content") if turns else None
    if not isinstance(target, str):
        raise rendering.refused(task, document, "its assistant says nothing")
    try:
        text, ids = talk.asked(made.messages[: turns[-1]])
    except ValueError as error:
        raise rendering.refused(task, document, str(error)) from None
    return Case(document.id, text, tuple(ids), target, -1)
