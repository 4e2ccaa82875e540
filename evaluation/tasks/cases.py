"""The examples of a task that a model is judged by: what it is asked, and what it should answer."""

import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import sources, tasks
from data.config import Corpus
from data.documents import Document, Progress
from data.examples import chat, limits, rendering
from data.examples.chat import Chat
from data.examples.rendering import Making, Renderer
from data.examples.sequences import Sequence
from data.tasks.task import Dialogue, Example
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


class Paired(NamedTuple):
    """Attributes:
    name: of its document.
    asked, chosen, rejected: the texts.
    answers: the two, each after what is asked; the better one first.
    """

    name: str
    asked: str
    chosen: str
    rejected: str
    answers: list[Sequence]


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
      UserError: a record that no example can be made of, by its name; there is none at all; it is a
        pair; or the task has dialogues, and the model no chat template.
    """
    task = tasks.find(corpus.task)
    talk = _chat(how) if task.chat else None
    chosen = _chosen(corpus, split, how, progress)
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


def read_pairs(
    corpus: Corpus,
    split: str,
    how: Reading,
    progress: Progress = lambda what, done, total: None,
) -> list[Paired]:
    """The pairs of a split, in its order; the arguments are those of `read`.

    Raises:
      UserError: a record that no pair can be made of, by its name, or there is none at all.
    """
    found = _chosen(corpus, split, how, progress)
    renderer = Renderer(Making(corpus.task, length=sys.maxsize), how.tokenizer)
    units = renderer.units([document for document, _, _ in found], Counter())
    return [
        Paired(unit.name, made.inputs, made.chosen, made.rejected, unit.sequences)
        for unit, (_, made, _) in zip(units, found, strict=True)
    ]


def _chosen(
    corpus: Corpus, split: str, how: Reading, progress: Progress
) -> list[tuple[Document, Any, int]]:
    """Documents of a split, what the task makes of each, and the number of its label; in order."""
    task = tasks.find(corpus.task)
    numbers = {label: number for number, label in enumerate(task.labels)}
    found: list[tuple[Document, Any, int]] = []
    source = sources.find(corpus.source, corpus, progress)
    for shard in source.shards(split):
        for document, _ in shard.documents():
            made, label = rendering.example_of(task, corpus.task, document), -1
            if made is None:
                continue
            if isinstance(made, Example) and numbers:
                if made.targets not in numbers:
                    what = f"its answer {made.targets!r} is none of the task's labels"
                    raise rendering.refused(corpus.task, document, what)
                label = numbers[made.targets]
            if not task.pairs:
                document = document._replace(metadata={})
            found.append((document, made, label))
    if not found:
        raise UserError(f"{source.name}, split {split!r}, has no example of task {corpus.task!r}")
    if not how.examples or how.examples >= len(found):
        return found
    names = [document.id for document, _, _ in found]
    labels = np.array([label for _, _, label in found])
    stays = limits.chosen(names, labels, how.examples, purpose="judge")
    return [found[i] for i in np.flatnonzero(stays)]


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
