"""The examples of a task that a model is judged by: what it is asked, and what it should answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from data import sources
from data.config import Corpus
from data.documents import Document, Progress, line_of
from data.sources.splits import hash_of
from data.tasks.task import Dialogue, Example, Pair, Task
from data.tokenizer import Tokenizer
from data.tokenizing.published import Published
from errors import UserError

_ASSISTANT = "assistant"


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


class Asked(NamedTuple):
    """A task, by its name, and where its examples are.

    Attributes:
      name: see data.tasks.find.
      task: the task.
      corpus: its source; `text_key` is "".
      split: of it.
    """

    name: str
    task: Task
    corpus: Corpus
    split: str


def read(
    asked: Asked,
    examples: int,
    tokenizer: Tokenizer,
    published: Published | None,
    progress: Progress,
) -> list[Case]:
    """Cases of a split, in its order.

    Args:
      asked: whose.
      examples: at most so many, as many of each label as of another as far as there are so many,
        in an order that is always the same; 0 is all.
      tokenizer: of the model.
      published: what came with it; dialogues need its chat template.
      progress: see data.documents.Progress.

    Raises:
      UserError: a record that no example can be made of, by its name, or there is none at all.
    """
    task = asked.task
    numbers = {label: number for number, label in enumerate(task.labels)}
    found: list[tuple[str, Example | Dialogue, int]] = []
    source = sources.find(asked.corpus.source, asked.corpus, progress)
    for shard in source.shards(asked.split):
        for document, _ in shard.documents():
            made = _made(asked, document)
            if made is None:
                continue
            label = -1
            if numbers:
                if not isinstance(made, Example) or made.targets not in numbers:
                    raise _refused(asked, document, "its answer is none of the task's labels")
                label = numbers[made.targets]
            found.append((document.id, made, label))
    if not found:
        raise UserError(f"{source.name}, split {asked.split!r}, has no example of {asked.name}")
    chosen = [found[i] for i in _chosen(found, examples)]
    plain = [one for one in chosen if isinstance(one[1], Example)]
    every = iter(tokenizer.encode_batch([made.inputs for _, made, _ in plain]))  # type: ignore[union-attr]
    cases = []
    for name, made, label in chosen:
        if isinstance(made, Example):
            ids = (tokenizer.bos_id, *map(int, next(every)))
            cases.append(Case(name, made.inputs, ids, made.targets, label))
        else:
            cases.append(_turn(asked, name, made, published))
    return cases


def _chosen(found: Sequence[tuple[str, Any, int]], examples: int) -> list[int]:
    """Places of those that are chosen, in order."""
    if not examples or examples >= len(found):
        return list(range(len(found)))
    turns: dict[int, int] = {}
    ranked = []
    for place in sorted(range(len(found)), key=lambda i: (hash_of(f"judge {found[i][0]}"), i)):
        label = found[place][2]
        turn = turns[label] = turns.get(label, 0) + 1
        ranked.append((turn, hash_of(f"label {label}"), place))
    return sorted(place for _, _, place in sorted(ranked)[:examples])


def _made(asked: Asked, document: Document) -> Example | Dialogue | None:
    record = document.metadata or {"text": document.text}
    try:
        made = asked.task.fields(record)
    except KeyError as error:
        there = ", ".join(sorted(map(str, record))) or "nothing"
        raise _refused(asked, document, f"it has no {error}, but {there}") from None
    except Exception as error:  # a task is a program that anybody writes
        raise _refused(asked, document, line_of(error)) from error
    if isinstance(made, Pair):
        raise UserError(
            f"{asked.name} is a task of pairs, which have no answer to be judged by: train.py says "
            "how often the better one is the likelier"
        )
    if isinstance(made, Example) and not made.targets.strip():
        raise _refused(asked, document, "its targets are empty")
    return made


def _turn(asked: Asked, name: str, made: Dialogue, published: Published | None) -> Case:
    """The last answer of a dialogue, and all before it."""
    if published is None or published.template is None:
        raise UserError(
            f"{asked.name} has dialogues, and the model has no chat template, which `convert.py "
            "from-hf` would have put into WORKDIR/hf"
        )
    turns = [i for i, one in enumerate(made.messages) if one.get("role") == _ASSISTANT]
    if not turns or not str(made.messages[turns[-1]].get("content") or "").strip():
        raise UserError(
            f"{name!r} is no example of task {asked.name!r} (nothing is answered in it): repair "
            "it, or leave it out"
        )
    text = published.template.render(made.messages[: turns[-1]], add_generation_prompt=True)
    target = str(made.messages[turns[-1]]["content"])
    return Case(name, text, tuple(published.rendered(text)), target, -1)


def _refused(asked: Asked, document: Document, what: str) -> UserError:
    return UserError(
        f"{document.id!r} is no example of task {asked.name!r} ({what}): repair it, or leave it out"
    )
