"""Examples that cannot be: one line names each, and says why; too long ones are left out or cut."""

import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import building, tasks
from data.documents import Document
from data.examples.rendering import Making, Renderer, Unit
from data.store import TokenStore
from data.tasks.task import Dialogue, Example, Pair, Task
from data.tokenizer import ByteTokenizer
from errors import UserError
from tests.data.shards import Records

BOS, EOS = ByteTokenizer.bos_id, ByteTokenizer.eos_id


def units(record: dict[str, Any], making: Making) -> tuple[list[Unit], Counter[str]]:
    counts: Counter[str] = Counter()
    renderer = Renderer(making, ByteTokenizer())
    return list(renderer.units([Document("file:7", "", record)], counts)), +counts


@pytest.fixture
def own_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[..., Any]], str]]:
    """own_task(fields) -> the name of a task that makes of records what `fields` makes."""

    def install(fields: Callable[..., Any]) -> str:
        module = types.ModuleType("data.tasks.own")
        module.task = lambda argument: Task("files:x", fields)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "data.tasks.own", module)
        monkeypatch.setattr(tasks, "names", lambda: ["own"])
        return "own"

    yield install


def test_an_answer_and_its_end_are_learned() -> None:
    (unit,), counts = units({"question": "1 + 1", "answer": "2"}, Making("gsm8k", 64))
    (one,) = unit.sequences
    prompt = b"Question: 1 + 1\nAnswer:"
    assert one.ids.tolist() == [BOS, *prompt, *b" 2", EOS]
    assert one.learned.tolist() == [False] * (1 + len(prompt)) + [True] * 3
    assert one.text_bytes == len(prompt) + 2 and not counts


@pytest.mark.parametrize(
    ("task", "record", "says"),
    [
        ("gsm8k", {"answer": "2", "level": 3}, "it has no 'question', but answer, level"),
        ("gsm8k", {"question": "1", "answer": ""}, "its targets is empty"),
        ("gsm8k", {"question": "1", "answer": "  \n"}, "its targets is empty"),
        ("clinc150", {"text": "hi", "intent": "hullo"}, "' hullo' is none of the 150 labels"),
        ("gsm8k_preferences", {"prompt": "1", "chosen": "2", "rejected": ""}, "its rejected is em"),
        ("instructions", {"instruction": "a", "instances": []}, "list index out of range"),
        ("multitask:paws", {"task": "paws", "inputs": 3, "targets": "No"}, "inputs is not text bu"),
    ],
)
def test_what_is_no_example_is_named(task: str, record: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        units(record, Making(task, 64))
    assert str(caught.value).startswith(f"'file:7' is no example of task {task!r} (")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_fields_is_named() -> None:
    renderer = Renderer(Making("gsm8k", 64), ByteTokenizer())
    with pytest.raises(UserError, match=r"it has no 'question', but text"):
        list(renderer.units([Document("a.txt", "some text")], Counter()))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (lambda record: record["a"]["b"], "it has no 'b', but a"),
        (lambda record: 1 / 0, "division by zero"),
        (lambda record: ("in", "out"), "its task makes a tuple"),
        (lambda record: Example("in", record.get("b")), "its targets is not text but null"),
        (lambda record: Dialogue(({"content": "x"},)), "message 1 has no 'role'"),
        (
            lambda record: Dialogue(({"role": "assistant", "content": " "},)),
            "message 1, of the assistant, is empty",
        ),
        (
            lambda record: Dialogue(({"role": "assistant", "content": "x"},)),
            "let its Task say chat=True",
        ),
    ],
)
def test_what_a_task_may_not_do(
    own_task: Callable[..., str], fields: Callable[..., Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        units({"a": {}}, Making(own_task(fields), 64))


def test_records_of_other_tasks_are_counted() -> None:
    made, counts = units({"task": "dream"}, Making("multitask:paws", 64))
    assert made == [] and counts == {"dropped: not of the task": 1}


def test_labels_are_numbers() -> None:
    (unit,), _ = units({"text": "bye", "intent": "yes"}, Making("clinc150", 64))
    assert tasks.find("clinc150").labels[unit.label] == " yes"


@pytest.mark.parametrize("too_long", ["drop", "cut"])
def test_too_long(too_long: Any) -> None:
    record = {"question": "x" * 40, "answer": "yz"}  # 58 of a prompt, 3 of an answer, BOS and EOS
    making = Making("gsm8k", 62, too_long)
    (whole,), counts = units(record, making)
    assert whole.sequences[0].positions == 62 and not counts
    record["question"] += "é"
    made, counts = units(record, making)
    if too_long == "drop":
        assert made == [] and counts == {"dropped: too long": 1}
        return
    assert counts == {"cut: too long": 1}
    (one,) = made[0].sequences
    prompt = f"Question: {record['question']}\nAnswer:".encode()[2:]
    assert one.ids.tolist() == [BOS, *prompt, *b" yz", EOS]
    assert one.learned.tolist() == [False] * (1 + len(prompt)) + [True] * 4
    assert one.text_bytes == len(prompt) + 3
    made, counts = units(record, Making("gsm8k", 4, too_long))
    assert made[0].sequences[0].ids.tolist() == [BOS, *b" yz", EOS]  # the answer stays whole
    made, counts = units(record, Making("gsm8k", 3, too_long))
    assert made == [] and counts == {"dropped: too long": 1}


def test_both_of_a_pair_lose_the_same() -> None:
    record = {"prompt": "abcdef", "chosen": "uv", "rejected": "xyz"}
    whole, _ = units(record, Making("gsm8k_preferences", 99, "cut"))
    positions = sum(one.positions for one in whole[0].sequences)
    made, counts = units(record, Making("gsm8k_preferences", positions - 3, "cut"))
    assert counts == {"cut: too long": 1}
    for before, after in zip(whole[0].sequences, made[0].sequences, strict=True):
        assert after.ids.tolist() == [BOS, *before.ids[3:].tolist()]
        assert (
            np.flatnonzero(after.learned).tolist() == (np.flatnonzero(before.learned) - 2).tolist()
        )


def build(path: Path, records: list[dict[str, str]], making: Making) -> TokenStore:
    return building.build(path, [Records(records)], ByteTokenizer(), {"split": "s"}, making=making)


def test_nothing_that_is_left_is_one_line(tmp_path: Path) -> None:
    records = [{"question": "x" * 99, "answer": "y"}] * 3
    with pytest.raises(UserError, match=r"all 3 are left out \(too long 3\); use a split"):
        build(tmp_path / "store", records, Making("gsm8k", 20))


def test_pairs_and_others_do_not_mix(tmp_path: Path, own_task: Callable[..., str]) -> None:
    def fields(record: dict[str, str]) -> Any:
        return Pair("a", "b", "c") if record["kind"] == "pair" else Example("a", "b")

    records = [{"kind": "pair"}, {"kind": "one"}]
    with pytest.raises(UserError, match="it is a pair: let its Task say pairs=True"):
        build(tmp_path / "store", records, Making(own_task(fields), 20))


def test_a_limit_is_dealt_over_labels(tmp_path: Path) -> None:
    intents = ["yes"] * 30 + ["no"] * 4 + ["maybe"] * 20
    records = [{"text": f"t{i}", "intent": intent} for i, intent in enumerate(intents)]
    making = Making("clinc150", 64, limit=14)
    made = build(tmp_path / "some", records, making)
    names = [int(made.document_id(i)[1:]) for i in range(made.n_documents)]
    assert names == sorted(names)
    assert Counter(intents[i] for i in names) == {"yes": 5, "no": 4, "maybe": 5}
    assert made.manifest["counts"]["dropped: over the limit"] == 40
    assert names[:5] != list(range(5))
    more = build(tmp_path / "more", [*records, {"text": "new", "intent": "maybe"}], making)
    kept = {more.document_id(i) for i in range(more.n_documents)}
    assert len(kept & {f"r{i}" for i in names}) >= 13  # one may have come in the place of another


def test_a_limit_is_of_pairs(tmp_path: Path) -> None:
    records = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(9)]
    made = build(tmp_path / "store", records, Making("gsm8k_preferences", 64, limit=4))
    names = [made.document_id(i) for i in range(made.n_documents)]
    assert made.unit == 2 and len(names) == 8 and names[::2] == names[1::2]
    assert len(set(names)) == 4
