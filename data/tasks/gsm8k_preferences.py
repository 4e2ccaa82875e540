"""A right and a wrong way to the answer of a question of GSM8K, which models have written.

Records: {"prompt", "chosen", "rejected"}; several are of one question. The questions are of GSM8K's
test file: whoever trains on them has no test on it.
"""

from data.tasks.task import Pair, Record, Task


def task(argument: str) -> Task:
    """The task; it takes no argument."""
    if argument:
        raise ValueError(f"task='gsm8k_preferences:{argument}': it takes no argument")
    return Task(
        source="files:gsm8k/preferences_*.jsonl.gz",
        fields=_fields,
        train_split="preferences_train.jsonl.gz",
        eval_split="preferences_val.jsonl.gz",
        pairs=True,
    )


def _fields(record: Record) -> Pair:
    return Pair(
        f"Question: {record['prompt']}\nAnswer:", f" {record['chosen']}", f" {record['rejected']}"
    )
