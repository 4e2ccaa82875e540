"""Cases of a task: read as examples to train on are, chosen evenly, and refused by name."""

import json
from collections import Counter

import pytest

from data import tasks
from data.config import DataConfig
from data.tasks.task import Dialogue, Example, Task
from data.tokenizer import ByteTokenizer, train_bpe
from errors import UserError
from evaluation.tasks.cases import Reading, read

LABELS = (" yes", " no", " maybe")
TEMPLATE = (
    "{% for m in messages %}<|bos|>{{ m.role }}:{{ m.content }}<|eos|>{% endfor %}"
    "{% if add_generation_prompt %}<|bos|>assistant:{% endif %}"
)


def make(record):
    if "messages" in record:
        return Dialogue(tuple(record["messages"]))
    return Example(record["q"], record["a"]) if record["q"] else None


def reading(examples=0, tokenizer=None, path="byte", template="") -> Reading:
    return Reading(tokenizer or ByteTokenizer(), path, template, examples)


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """Reads records as a task's."""

    def run(records, how=None, **of_task):
        task = Task(source=f"files:{tmp_path}/*.jsonl", fields=make, eval_split="b*", **of_task)
        monkeypatch.setattr(tasks, "find", lambda name: task)
        (tmp_path / "a.jsonl").write_text("")
        lines = (json.dumps(record) + "\n" for record in records)
        (tmp_path / "b.jsonl").write_text("".join(lines))
        splits = {"train_split": "a*", "eval_split": "b*"}
        config = DataConfig(task.source, 8, packing="best_fit", task="mine", **splits)
        return read(config.corpora()[0], "b*", how or reading())

    return run


def test_inputs_are_tokenized_alone(cases):
    found = cases([{"q": "né", "a": " x"}, {"q": "", "a": "no example"}, {"q": "b", "a": "y"}])
    bos = ByteTokenizer().bos_id
    assert [(one.asked, one.ids, one.target, one.label) for one in found] == [
        ("né", (bos, *"né".encode()), " x", -1),
        ("b", (bos, *b"b"), "y", -1),
    ]


def test_as_many_of_each_label(cases):
    records = [{"q": str(i), "a": LABELS[0 if i < 40 else 1 + (i > 41)]} for i in range(50)]
    found = cases(records, reading(20), labels=LABELS)
    # Of the second there are two; the others have what is left.
    assert Counter(one.label for one in found) == {0: 9, 1: 2, 2: 8} or Counter(
        one.label for one in found
    ) == {0: 10, 1: 2, 2: 8}
    assert [int(one.asked) for one in found] == sorted(int(one.asked) for one in found)
    assert cases(records, reading(20), labels=LABELS) == found
    # More of them are those and others.
    assert set(found) < set(cases(records, reading(30), labels=LABELS))
    assert len(cases(records, reading(51), labels=LABELS)) == 50


def test_a_dialogue_is_asked_for_its_last_answer(cases, tmp_path):
    tokenizer = train_bpe(["user assistant: rose moon"], 300)
    tokenizer.save(tmp_path / "tokenizer.json")
    file = tmp_path / "template.jinja"
    file.write_text(TEMPLATE)
    said = [("user", "rose"), ("assistant", "moon"), ("user", "rose?"), ("assistant", "sea")]
    messages = [{"role": role, "content": content} for role, content in said]
    messages.append({"role": "user", "content": "left out"})
    how = reading(0, tokenizer, str(tmp_path / "tokenizer.json"), str(file))
    (one,) = cases([{"messages": messages}], how, chat=True)
    want = "<|bos|>user:rose<|eos|><|bos|>assistant:moon<|eos|><|bos|>user:rose?<|eos|>"
    want += "<|bos|>assistant:"
    assert (one.asked, one.target) == (want, "sea")
    assert one.ids[0] == tokenizer.bos_id and one.ids.count(tokenizer.eos_id) == 3
    with pytest.raises(UserError, match=r"'b.jsonl:1' is no example .*its assistant says nothing"):
        cases([{"messages": messages[:1]}], how, chat=True)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"q": "x", "a": " perhaps"}, "its answer ' perhaps' is none of the task's labels"),
        ({"q": "x"}, "it has no 'a', but q"),
        ({"q": "x", "a": " "}, "its targets is empty"),
        ({"q": 3, "a": " no"}, "its inputs is not text but int"),
    ],
)
def test_what_is_no_example(cases, record, says):
    with pytest.raises(UserError, match=f"'b.jsonl:2' is no example of task 'mine' .{says}"):
        cases([{"q": "x", "a": " no"}, record], labels=LABELS)


def test_no_example_at_all(cases):
    with pytest.raises(UserError, match=r"split 'b.', has no example of task 'mine'"):
        cases([{"q": "", "a": " no"}])
