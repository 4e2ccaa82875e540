"""What is learned from examples: one file a task, named by data.task.

A task says where its records are and how their fields become an example (data/tasks/task.py); all
else is as for plain text. A new task is one file here: "NAME" is data/tasks/NAME.py, whose
`task(argument)` is given what stands after the colon of "NAME:ARGUMENT".
"""

import difflib
import hashlib
import importlib
from pathlib import Path

from data.documents import line_of
from data.tasks.task import Task
from errors import UserError

_NOT_TASKS = ("__init__", "task")


def names() -> list[str]:
    """The tasks that there are."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(file.stem for file in files if file.stem not in _NOT_TASKS)


def identity(text: str) -> str:
    """Names what a task makes of records: another program may make other examples of them. That
    is its one file, without what it imports."""
    file = Path(__file__).parent / f"{text.partition(':')[0]}.py"
    return f"{text} {hashlib.sha256(file.read_bytes()).hexdigest()[:32]}"


def find(text: str) -> Task:
    """The task that `text` names.

    Args:
      text: "NAME" or "NAME:ARGUMENT".

    Raises:
      ValueError: there is none, or it knows no such argument; one line says which there are.
      UserError: its file is no program, or makes no task.
    """
    name, _, argument = text.partition(":")
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1) or names()
        raise ValueError(f"task={text!r}: no such task; there is {', '.join(near)}")
    file = f"data/tasks/{name}.py"
    try:
        make = importlib.import_module(f"data.tasks.{name}").task
    except Exception as error:  # a task is a program that anybody writes
        where = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(
            f"{file}{where} is no task ({line_of(error)}): give it a function task(argument) that "
            "returns a Task"
        ) from error
    made = make(argument)
    if not isinstance(made, Task):
        raise UserError(
            f"{file}: task({argument!r}) returns a {type(made).__name__}, not a Task: correct it"
        )
    return made
