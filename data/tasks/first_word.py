"""Which word a line of code began with: labels that need no assets, of any source of text.

Records: {"text"}; the line is the first one of the text that begins with one of the words. Those
without are left out.
"""

from data.tasks.task import Example, Record, Task

_WORDS = ("class", "def", "for", "from", "if", "import", "return", "while")


def task(argument: str) -> Task:
    """The task; it takes no argument."""
    if argument:
        raise ValueError(f"task='first_word:{argument}': it takes no argument")
    return Task(
        source="python_stdlib",
        fields=_fields,
        train_split="train",
        eval_split="validation",
        labels=tuple(f" {word}" for word in _WORDS),
        metrics=("accuracy",),
        max_tokens=8,
    )


def _fields(record: Record) -> Example | None:
    for line in record["text"].splitlines():
        word, _, rest = line.strip().partition(" ")
        if word in _WORDS and rest.strip():
            return Example(f"{rest.strip()[:80]} <", f" {word}")
    return None
