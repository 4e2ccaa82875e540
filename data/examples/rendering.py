"""What a task makes of a corpus's documents, or why one of them cannot be made anything of."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import tasks
from data.documents import Document, line_of
from data.examples import chat
from data.examples import sequences as made_of
from data.examples.sequences import Sequence as Made
from data.examples.sequences import TooLong
from data.tasks.task import Dialogue, Example, Pair, Record, Task
from data.tokenizer import Tokenizer
from errors import UserError

VERSION = 2  # part of a store's address: raise it when other examples come of the same records

# How what is left out, or changed, is counted.
NOT_OF_THE_TASK = "dropped: not of the task"
TOO_LONG = "dropped: too long"
CUT = "cut: too long"


@dataclass(frozen=True)
class Making:
    """How examples are made. It can be pickled.

    Attributes:
      task: see tasks.find.
      length: positions of a row (T), in which an example lies whole.
      too_long: what becomes of one that does not fit: "drop", or "cut", on the side of the prompt;
        of a dialogue whole turns go.
      limit: examples, at most, as many of each label as of another; 0 is all.
      chat: a folder with a chat template and what spells its specials, where the task needs one.
    """

    task: str
    length: int
    too_long: TooLong = "drop"
    limit: int = 0
    chat: Path | None = None


class Unit(NamedTuple):
    """What one record becomes.

    Attributes:
      name: of its document.
      label: its number among those of the task; 0 where it has none.
      sequences: one, or of a pair two, the better one first.
    """

    name: str
    label: int
    sequences: list[Made]


def record_of(document: Document) -> Record:
    """What a task sees of a document; of a file without fields, its text."""
    return document.metadata or {"text": document.text}


def text_of(task: Task, name: str, document: Document) -> str:
    """All text of an example, for what wants a text: a tokenizer's training, filters' n-grams.

    Args:
      name: of the task.

    Raises:
      UserError: as of `Renderer`.
    """
    made = example_of(task, name, document)
    if isinstance(made, Dialogue):
        return "\n".join(str(one.get("content") or "") for one in made.messages)
    if isinstance(made, Pair):
        return f"{made.inputs}{made.chosen}\n{made.rejected}"
    return "" if made is None else made.inputs + made.targets


class Renderer:
    """Makes sequences of documents.

    Args:
      making: how.
      tokenizer: of the store.

    Raises:
      UserError: the chat template is no program.
    """

    def __init__(self, making: Making, tokenizer: Tokenizer) -> None:
        self._making, self._tokenizer = making, tokenizer
        self._task = tasks.find(making.task)
        self._labels = {label: i for i, label in enumerate(self._task.labels)}
        self._chat = chat.Chat(making.chat) if making.chat else None

    def units(self, documents: Sequence[Document], counts: Counter[str]) -> Iterator[Unit]:
        """What becomes of documents, in their order; those that become nothing are counted.

        Raises:
          UserError: one line names the document, and says what is wrong with it.
        """
        found = [
            (document, made)
            for document in documents
            if (made := example_of(self._task, self._making.task, document)) is not None
        ]
        counts[NOT_OF_THE_TASK] += len(documents) - len(found)
        encoded = self._encoded([_parts(made) for _, made in found])
        for (document, made), parts in zip(found, encoded, strict=True):
            unit = self._unit(document, made, parts)
            fits = sum(one.positions for one in unit.sequences) <= self._making.length
            left = unit.sequences
            if not fits:
                left = []
                if self._making.too_long == "cut":
                    left = self._shortened(document, made, unit)
                counts[CUT if left else TOO_LONG] += 1
            if left:
                yield unit._replace(sequences=left)

    def _shortened(self, document: Document, made: Any, unit: Unit) -> list[Made]:
        """What is left of a unit so that it fits; nothing where that cannot be."""
        tokenizer, length = self._tokenizer, self._making.length
        if not isinstance(made, Dialogue):
            return made_of.fitted(unit.sequences, length, tokenizer.bos_id, tokenizer.token_bytes)
        messages = made.messages
        while messages := chat.later(messages):
            if all(one["role"] != chat.ASSISTANT for one in messages):
                break  # after the last answer there is nothing to learn
            sequence = self._dialogue(document, Dialogue(messages))
            if sequence.positions <= length:
                return [sequence]
        return []

    def _unit(self, document: Document, made: Any, parts: list[np.ndarray]) -> Unit:
        label = 0
        if isinstance(made, Dialogue):
            sequences = [self._dialogue(document, made)]
        else:
            inputs, *answers = parts
            for i, (text, ids) in enumerate(zip(made, parts, strict=True)):
                before = self._tokenizer.prefix_bytes if text and not i else 0
                self._check_kept(document, text, ids, before)
            sequences = [self._joined(document, inputs, answer) for answer in answers]
        if self._labels and isinstance(made, Example):
            if made.targets not in self._labels:
                raise self._refused(
                    document,
                    f"its answer {made.targets!r} is none of the {len(self._labels)} labels, which "
                    f"begin {', '.join(map(repr, self._task.labels[:3]))}",
                )
            label = self._labels[made.targets]
        return Unit(document.id, label, sequences)

    def _encoded(self, texts: Sequence[tuple[str, ...]]) -> Iterator[list[np.ndarray]]:
        """The ids of inputs and of what follows them; many texts at once are faster."""
        first = iter(self._tokenizer.encode_batch([some[0] for some in texts if some]))
        inner = iter(self._tokenizer.encode_inner([text for some in texts for text in some[1:]]))
        for some in texts:
            yield [next(inner if i else first) for i in range(len(some))]

    def _joined(self, document: Document, inputs: np.ndarray, answer: np.ndarray) -> Made:
        tokenizer = self._tokenizer
        bos, eos = (np.array([i], np.uint32) for i in (tokenizer.bos_id, tokenizer.eos_id))
        ids = np.concatenate([bos, inputs, answer, eos])
        learned = np.arange(ids.size) > inputs.size
        prefix = tokenizer.prefix_bytes if inputs.size else 0
        return self._checked(document, ids, learned, prefix)

    def _check_kept(self, document: Document, text: str, ids: np.ndarray, prefix: int) -> None:
        if int(self._tokenizer.token_bytes[ids].sum()) != len(text.encode()) + prefix:
            raise UserError(
                f"the tokenizer loses text of document {document.id!r}: use a lossless byte-level "
                "tokenizer"
            )

    def _dialogue(self, document: Document, made: Dialogue) -> Made:
        if self._chat is None:
            raise self._refused(document, "it is a dialogue: let its Task say chat=True")
        try:
            ids, learned = self._chat.render(made.messages)
        except ValueError as error:
            raise self._refused(document, str(error)) from None
        if not learned.any():
            raise self._refused(document, "nothing of it is learned: no message of the assistant")
        return self._checked(document, ids, learned, 0)

    def _checked(
        self, document: Document, ids: np.ndarray, learned: np.ndarray, prefix: int
    ) -> Made:
        if ids.max() >= self._tokenizer.vocab_size:
            raise UserError(
                f"the tokenizer gives id {ids.max()} in document {document.id!r}, outside its "
                f"vocabulary of {self._tokenizer.vocab_size}: repair its file"
            )
        return Made(ids, learned, int(self._tokenizer.token_bytes[ids].sum()) - prefix)

    def _refused(self, document: Document, what: str) -> UserError:
        return refused(self._making.task, document, what)


def refused(task: str, document: Document, what: str) -> UserError:
    """One line that names an example, and says what is wrong with it."""
    return UserError(
        f"{document.id!r} is no example of task {task!r} ({what}): repair it, or leave it out"
    )


def _parts(made: Any) -> tuple[str, ...]:
    """The texts of which each is tokenized alone."""
    return () if isinstance(made, Dialogue) else tuple(made)


def example_of(task: Task, name: str, document: Document) -> Any:
    """What a task makes of a document: an Example, Dialogue or Pair that can be; or None.

    Args:
      name: of the task.

    Raises:
      UserError: as of `Renderer`.
    """
    record = record_of(document)
    try:
        made = task.fields(record)
    except KeyError as error:
        there = ", ".join(sorted(map(str, record))) or "nothing"
        raise refused(name, document, f"it has no {error}, but {there}") from None
    except Exception as error:  # a task is a program that anybody writes
        raise refused(name, document, line_of(error)) from error
    match made:
        case None:
            pass
        case Dialogue():
            for number, message in enumerate(made.messages, 1):
                _check_message(name, document, number, message)
        case Example() | Pair():
            for field, text in made._asdict().items():
                if not isinstance(text, str):
                    kind = "null" if text is None else type(text).__name__
                    raise refused(name, document, f"its {field} is not text but {kind}")
                if field != "inputs" and not text.strip():
                    raise refused(name, document, f"its {field} is empty: nothing is learned")
        case _:
            kind = type(made).__name__
            raise refused(name, document, f"its task makes a {kind}, not an Example of it")
    if made is not None and isinstance(made, Pair) != task.pairs:
        kind = "no pair" if task.pairs else "a pair"
        raise refused(name, document, f"it is {kind}: let its Task say pairs={not task.pairs}")
    return made


def _check_message(name: str, document: Document, number: int, message: Any) -> None:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise refused(name, document, f"message {number} has no 'role'")
    content = message.get("content") or ""
    said = content.strip() if isinstance(content, str) else content
    if message["role"] == chat.ASSISTANT and not (said or message.get("tool_calls")):
        raise refused(name, document, f"message {number}, of the assistant, is empty")
