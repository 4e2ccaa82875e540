"""How a text goes on after its first line: answers, or turns of a chat ("next_line:chat"), that
need no assets, of any source of text.

Records: {"text"}; those with fewer lines are left out.
"""

import functools

from data.tasks.task import Dialogue, Example, Record, Task

_LONGEST = 80  # characters of a line


def task(argument: str) -> Task:
    """The task, as text or as dialogues."""
    if argument not in ("", "chat"):
        raise ValueError(f"task='next_line:{argument}': give 'next_line' or 'next_line:chat'")
    return Task(
        source="python_stdlib",
        fields=functools.partial(_fields, argument == "chat"),
        train_split="train",
        eval_split="validation",
        metrics=() if argument else ("bleu", "chrf"),
        max_tokens=48,
        chat=argument == "chat",
    )


def _fields(chat: bool, record: Record) -> Example | Dialogue | None:
    lines = [line.strip()[:_LONGEST] for line in record["text"].splitlines() if line.strip()]
    if len(lines) < 4:
        return None
    if not chat:
        return Example(lines[0] + "\n", lines[1])
    roles = ("user", "assistant") * 2
    turns = zip(roles, lines, strict=False)
    return Dialogue(tuple({"role": role, "content": line} for role, line in turns))
