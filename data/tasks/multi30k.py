"""Multi30k: captions of photographs in several languages (Elliott et al. 2016, "Multi30K:
Multilingual English-German Image Descriptions").

Records: {"en", "de", "fr"}. The argument says from which language into which: "multi30k:en-de".
"""

import functools

from data.tasks.task import Example, Record, Task

_LANGUAGES = {"en": "English", "de": "German", "fr": "French"}


def task(argument: str) -> Task:
    """The task of one direction."""
    from_, _, to = argument.partition("-")
    if from_ not in _LANGUAGES or to not in _LANGUAGES or from_ == to:
        raise ValueError(
            f"task='multi30k:{argument}': give two of {', '.join(_LANGUAGES)}, as in "
            "'multi30k:en-de'"
        )
    return Task(
        source="files:multi30k/*.jsonl.gz",
        fields=functools.partial(_fields, from_, to),
        metrics=("bleu", "chrf"),
        max_tokens=64,
    )


def _fields(from_: str, to: str, record: Record) -> Example:
    inputs = f"{_LANGUAGES[from_]}: {record[from_]}\n{_LANGUAGES[to]}:"
    return Example(inputs, f" {record[to]}")
