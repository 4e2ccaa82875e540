"""How a text goes on, against its next lines in the reverse order: pairs of answers that need no
assets, of any source of text.

Records: {"text"}; those without enough lines are left out. The prompt is the first lines of a text,
and each answer the ones after them.
"""

from data.tasks.task import Pair, Record, Task

_PROMPT, _ANSWER = 2, 3  # lines


def task(argument: str) -> Task:
    """The task; it takes no argument."""
    if argument:
        raise ValueError(f"task='line_order:{argument}': it takes no argument")
    return Task(source="python_stdlib", fields=_fields, pairs=True)


def _fields(record: Record) -> Pair | None:
    lines = [line for line in record["text"].splitlines() if line.strip()]
    prompt, answer = lines[:_PROMPT], lines[_PROMPT : _PROMPT + _ANSWER]
    if len(answer) < _ANSWER or answer == answer[::-1]:
        return None
    return Pair("\n".join(prompt) + "\n", "\n".join(answer), "\n".join(answer[::-1]))
