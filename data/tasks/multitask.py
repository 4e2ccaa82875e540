"""Seventeen tasks as text, in several wordings each.

Records: {"task", "inputs", "targets"}. The argument is the task's name in them: "multitask:paws".
"""

import functools
from collections.abc import Mapping

from data.tasks.task import Example, Record, Task

_F1 = ("exact_match", "f1")
_ACCURACY = ("accuracy",)
_METRICS: Mapping[str, tuple[str, ...]] = {
    "adversarial_qa_dbert": _F1,
    "common_gen": ("bleu", "chrf"),
    "cosmos_qa": _F1,
    "dream": _F1,
    "gigaword": ("rouge",),
    "glue_mrpc": _ACCURACY,
    "glue_qqp": _ACCURACY,
    "paws": _ACCURACY,
    "qasc": _ACCURACY,
    "quarel": _F1,
    "quartz": _F1,
    "ropes": _F1,
    "samsum": ("rouge",),
    "sciq": _F1,
    "social_i_qa": _F1,
    "xsum": ("rouge",),
    "yelp": _ACCURACY,
}
_LABELS: Mapping[str, tuple[str, ...]] = {  # of all wordings of a task
    "glue_mrpc": ("yes", "no", "equivalent", "not equivalent"),
    "glue_qqp": ("yes", "no"),
    "paws": ("Yes", "No"),
    "qasc": ("Yes", "No"),
    "yelp": ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"),
}
_LONG = ("gigaword", "xsum", "samsum", "common_gen", "dream")


def task(argument: str) -> Task:
    """One of the tasks."""
    if argument not in _METRICS:
        raise ValueError(
            f"task='multitask:{argument}': give one of {', '.join(_METRICS)}, as in "
            "'multitask:paws'"
        )
    return Task(
        source="files:multitask/*.jsonl.gz",
        fields=functools.partial(_fields, argument),
        labels=tuple(f" {label}" for label in _LABELS.get(argument, ())),
        metrics=_METRICS[argument],
        max_tokens=128 if argument in _LONG else 32,
    )


def _fields(name: str, record: Record) -> Example | None:
    if record["task"] != name:
        return None
    return Example(record["inputs"], f" {record['targets']}")
