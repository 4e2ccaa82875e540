"""What is learned from examples: one file a task, named by data.task.

A task says where its records are and how their fields become an example (data/tasks/task.py); all
else is as for plain text. A new task is one file here: "NAME" is data/tasks/NAME.py, whose
`task(argument)` is given what stands after the colon of "NAME:ARGUMENT".
"""

import difflib
import hashlib
import importlib
from pathlib import Path

from data.tasks.task import Task

_NOT_TASKS = ("__init__", "task")


def names() -> list[str]:
    """The tasks that there are."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if file.stem not in _NOT_TASKS)


def identity(text: str) -> str:
    """Names what a task makes of records: another program may make other examples of them."""
    file = Path(__file__).parent / f"{text.partition(':')[0]}.py"
    return f"{text} {hashlib.sha256(file.read_bytes()).hexdigest()[:32]}"


def find(text: str) -> Task:
    """The task that `text` names.

    Args:
      text: "NAME" or "NAME:ARGUMENT".

    Raises:
      ValueError: there is none, or it knows no such argument; one line says which there are.
    """
    name, _, argument = text.partition(":")
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1) or names()
        raise ValueError(f"task={text!r}: no such task; there is {', '.join(near)}")
    made = importlib.import_module(f"data.tasks.{name}").task(argument)
    assert isinstance(made, Task)
    return made
