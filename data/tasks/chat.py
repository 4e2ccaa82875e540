"""Dialogues of a user and an assistant, as the tokenizer's chat template writes them.

Records: {"messages": [{"role", "content"}, ...]}; those in which the assistant says nothing, once
or ever, are left out.
"""

from data.tasks.task import Dialogue, Record, Task


def task(argument: str) -> Task:
    """The task; it takes no argument."""
    if argument:
        raise ValueError(f"task='chat:{argument}': it takes no argument")
    return Task(source="files:chat/*.jsonl.gz", fields=_fields, chat=True)


def _fields(record: Record) -> Dialogue | None:
    messages = tuple(record["messages"])
    answers = [one["content"] for one in messages if one["role"] == "assistant"]
    said = answers and all(answer.strip() for answer in answers)
    return Dialogue(messages) if said else None
