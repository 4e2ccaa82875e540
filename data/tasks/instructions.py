"""Instructions that people wrote, with answers (Wang et al. 2022, "Self-Instruct").

Records: {"instruction", "instances": [{"input", "output"}]}; the first instance is used.
"instructions:chat" has them as dialogues, which the tokenizer's chat template writes.
"""

from data.tasks.task import Dialogue, Example, Record, Task


def task(argument: str) -> Task:
    """The task, as text or as dialogues."""
    if argument not in ("", "chat"):
        raise ValueError(
            f"task='instructions:{argument}': give 'instructions' or 'instructions:chat'"
        )
    return Task(
        source="files:instructions/*.jsonl.gz",
        fields=_dialogue if argument else _example,
        train_split="train",
        eval_split="validation",
        chat=bool(argument),
        metrics=("rouge",),
        max_tokens=256,
    )


def _asked(record: Record) -> tuple[str, str]:
    """What is asked, and the answer."""
    instance = record["instances"][0]
    given = instance["input"]
    return record["instruction"] + (f"\n\n{given}" if given else ""), instance["output"]


def _example(record: Record) -> Example:
    asked, answer = _asked(record)
    return Example(f"Instruction: {asked}\n\nAnswer:", f" {answer}")


def _dialogue(record: Record) -> Dialogue:
    asked, answer = _asked(record)
    return Dialogue(({"role": "user", "content": asked}, {"role": "assistant", "content": answer}))
