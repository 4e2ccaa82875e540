"""GSM8K: school arithmetic, with the way to the answer (Cobbe et al. 2021, "Training Verifiers to
Solve Math Word Problems").

Records: {"question", "answer"}; an answer ends in "#### " and the number.
"""

from data.tasks.task import Example, Record, Task


def task(argument: str) -> Task:
    """The task; it takes no argument."""
    if argument:
        raise ValueError(f"task='gsm8k:{argument}': it takes no argument")
    return Task(
        source="files:gsm8k/*.jsonl.gz",
        fields=_fields,
        eval_split="test.jsonl.gz",
        metrics=("last_number",),
        max_tokens=256,
    )


def _fields(record: Record) -> Example:
    return Example(f"Question: {record['question']}\nAnswer:", f" {record['answer']}")
