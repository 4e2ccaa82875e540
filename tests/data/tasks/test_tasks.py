"""Tasks are found by name, and make examples of records."""

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from data import tasks
from data.tasks.task import Dialogue, Example, Pair
from errors import UserError

ASSETS = os.environ.get("PODIUM_ASSETS")


def test_a_task_is_found_by_its_file() -> None:
    found = tasks.find("clinc150")
    made = found.fields({"text": "what is my apr", "intent": "credit_limit_change"})
    assert made == Example("Question: what is my apr\nIntent:", " credit limit change")
    assert made.targets in found.labels
    assert len(set(found.labels)) == 150


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"task='clinc': no such task; there is clinc150"):
        tasks.find("clinc")


def test_an_argument_that_a_task_does_not_take_is_refused() -> None:
    with pytest.raises(ValueError, match="takes no argument"):
        tasks.find("clinc150:val")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("def task(argument):\n    return (\n", r"data/tasks/own\.py line 2 is no task \('\(' was"),
        (
            "fields = 3\n",
            r"data/tasks/own\.py is no task \(module .* has no attribute 'task'\): gi",
        ),
        ("import nothing_like_it\n", r"data/tasks/own\.py is no task \(No module named 'nothing_"),
        ("def task(argument):\n    pass\n", r"data/tasks/own\.py: task\(''\) returns a NoneType"),
    ],
)
def test_a_file_that_is_no_task_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    (tmp_path / "own.py").write_text(program)
    monkeypatch.setattr(tasks, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(tasks, "__path__", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "data.tasks.own", raising=False)
    with pytest.raises(UserError, match=f"^{says}"):
        tasks.find("own")
    sys.modules.pop("data.tasks.own", None)


def test_dialogues_without_an_answer_are_left_out() -> None:
    fields = tasks.find("chat").fields
    asked = {"role": "user", "content": "Hi"}
    said, silent = ({"role": "assistant", "content": text} for text in ("Ho", " "))
    assert fields({"messages": [asked]}) is None and fields({"messages": []}) is None
    assert fields({"messages": [asked, said, asked, silent]}) is None
    assert fields({"messages": [asked, said]}) == Dialogue((asked, said))


def test_every_task_can_be_found() -> None:
    arguments = {"multitask": "paws", "multi30k": "en-de"}
    assert {*arguments, "chat", "clinc150", "gsm8k", "gsm8k_preferences"} <= set(tasks.names())
    for name in tasks.names():
        text = f"{name}:{arguments[name]}" if name in arguments else name
        found = tasks.find(text)
        assert found.source.startswith(("files:", "python_stdlib"))
        assert len(set(found.labels)) == len(found.labels)
        assert tasks.identity(text) != tasks.identity(f"{text}:x")
        with pytest.raises(ValueError, match=f"^task='{name}:other'"):
            tasks.find(f"{name}:other")


@pytest.mark.parametrize(
    ("task", "record", "expected"),
    [
        (
            "gsm8k",
            {"question": "1 + 1?", "answer": "It is 2.\n#### 2"},
            Example("Question: 1 + 1?\nAnswer:", " It is 2.\n#### 2"),
        ),
        (
            "gsm8k_preferences",
            {"prompt": "1 + 1?", "chosen": "2", "rejected": "3"},
            Pair("Question: 1 + 1?\nAnswer:", " 2", " 3"),
        ),
        (
            "multi30k:fr-en",
            {"en": "A dog.", "de": "Ein Hund.", "fr": "Un chien."},
            Example("French: Un chien.\nEnglish:", " A dog."),
        ),
        (
            "multitask:paws",
            {"task": "paws", "inputs": "Are they alike?", "targets": "Yes"},
            Example("Are they alike?", " Yes"),
        ),
        ("multitask:paws", {"task": "yelp", "inputs": "a", "targets": "1 star"}, None),
        (
            "instructions",
            {"instruction": "Add.", "instances": [{"input": "1, 2", "output": "3"}]},
            Example("Instruction: Add.\n\n1, 2\n\nAnswer:", " 3"),
        ),
        (
            "instructions:chat",
            {"instruction": "Say it.", "instances": [{"input": "", "output": "It"}]},
            Dialogue(
                (
                    {"role": "user", "content": "Say it."},
                    {"role": "assistant", "content": "It"},
                )
            ),
        ),
        (
            "first_word",
            {"text": "# while\nx = 1\n  from os import path\ndef f(): ..."},
            Example("os import path <", " from"),
        ),
        ("first_word", {"text": "x = 1\nimport\n"}, None),
        ("next_line", {"text": "one\n\n two\nthree\nfour"}, Example("one\n", "two")),
        (
            "next_line:chat",
            {"text": "one\n\n two\nthree\nfour\nfive"},
            Dialogue(
                (
                    {"role": "user", "content": "one"},
                    {"role": "assistant", "content": "two"},
                    {"role": "user", "content": "three"},
                    {"role": "assistant", "content": "four"},
                )
            ),
        ),
        ("next_line", {"text": "one\ntwo"}, None),
        (
            "chat",
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]},
            None,
        ),
    ],
)
def test_what_tasks_make(task: str, record: Any, expected: Any) -> None:
    made = tasks.find(task).fields(record)
    assert made == expected and type(made) is type(expected)


@pytest.mark.skipif(not ASSETS, reason="PODIUM_ASSETS is not set: no records here")
@pytest.mark.parametrize("task", ["paws", "glue_mrpc", "glue_qqp", "qasc", "yelp"])
def test_labels_are_those_of_the_records(task: str) -> None:
    found = tasks.find(f"multitask:{task}")
    with gzip.open(Path(str(ASSETS)) / "tasks/multitask/train.jsonl.gz", "rt") as file:
        made = [found.fields(json.loads(line)) for line in file]
    assert {one.targets for one in made if isinstance(one, Example)} == set(found.labels)


def test_the_lines_of_a_text_against_their_reverse() -> None:
    fields = tasks.find("line_order").fields
    made = fields({"text": "a\n\nb\nc\nd\ne\nf\n"})
    assert made == ("a\nb\n", "c\nd\ne", "e\nd\nc")
    assert fields({"text": "a\nb\nc\nd"}) is None  # too few
    assert fields({"text": "a\nb\nc\nd\nc"}) is None  # neither is the better one
