"""Records of runs: written, and read whatever version wrote them."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from checkpointing import record
from configs import door, tiny
from errors import UserError

CONFIG = door.with_vocabulary(door.read(tiny.get_config(), "cpu"), 258)
NOW = record.Record(CONFIG, "s" * 32, "d" * 32, "e" * 32, {"jax": "0.10.2"}, "abc-dirty")
OLD: dict[str, Any] = json.loads((Path(__file__).parent / "records" / "run-0.json").read_text())


STREAM: Any = SimpleNamespace(
    fingerprint=lambda steps: f"the first {steps} steps", rows=lambda steps: 10 * steps
)


def through_json(saved: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(saved))


def test_a_record_comes_back():
    reached = NOW.after(7, STREAM, tokens=4321, evaluated=True)
    assert (reached.step, reached.rows, reached.tokens) == (7, 70, 4321)
    assert reached.stream == "the first 7 steps"
    assert record.read(through_json(reached.to_dict()), "runs/x") == (reached, [])


def test_what_a_record_is_made_of() -> None:
    data: Any = SimpleNamespace(fingerprint="d", eval_fingerprint="e")
    made = record.make(CONFIG, STREAM, data, {"jax": "1"}, "abc")
    assert made == record.Record(CONFIG, "the first 0 steps", "d", "e", {"jax": "1"}, "abc")


def test_the_first_version_of_a_record():
    """It named the stream "dataset" and the dataset "data", had no versions, and other keys."""
    for gone in ("qk_norm", "keep"):
        assert gone not in OLD["config"]["model"] | OLD["config"]["checkpoint"]
    assert "watch" not in OLD["config"]
    before, notes = record.read(OLD, "runs/x")
    assert before.config == CONFIG  # what is not there was the default
    assert (before.stream, before.dataset) == (OLD["dataset"], OLD["data"])
    assert (before.eval_store, before.versions, before.tokens) == ("", {}, 0)
    assert notes == [
        "runs/x was saved with debug={'level': 3}, which this version does not have: ignored",
    ]


def test_a_default_is_the_dataclass_s_own():
    """A config file's "auto" was resolved before it was saved: nothing is resolved again."""
    saved = through_json(NOW.to_dict())
    del saved["config"]["model"]["dtype"]
    assert record.read(saved, "x")[0].config.model.dtype == "float32"
    saved["config"]["model"]["dtype"] = "bfloat16"
    assert record.read(saved, "x")[0].config.model.dtype == "bfloat16"


@pytest.mark.parametrize("section", sorted(CONFIG.to_dict()))
def test_a_section_may_be_missing_whole(section):
    saved = through_json(NOW.to_dict())
    del saved["config"][section]
    if section in ("model", "data"):
        with pytest.raises(UserError, match=rf"config saved in runs/x cannot be read: {section}\."):
            record.read(saved, "runs/x")
    else:
        config = record.read(saved, "runs/x")[0].config
        default = getattr(type(CONFIG), section)
        assert config == dataclasses.replace(CONFIG, **{section: default})


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        ({}, "has no stream: it is damaged"),
        ({**OLD, "data": ""}, "has no dataset: it is damaged"),
        ({k: v for k, v in OLD.items() if k != "config"}, "has no config: it is damaged"),
        ({**OLD, "config": {**OLD["config"], "train": 3}}, "train=3: must be a section with keys"),
        ({**OLD, "config": []}, "must be a section with keys"),
        ({**OLD, "config": {**OLD["config"], "train": {"steps": 0}}}, "train.steps=0: must be at"),
        ({**OLD, "config": {**OLD["config"], "train": {"steps": "1"}}}, "must be a whole number"),
    ],
)
def test_what_is_no_record_is_refused(saved, says):
    with pytest.raises(UserError, match=says) as error:
        record.read(saved, "runs/x")
    assert "runs/x" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bound_that_is_tighter_now_keeps_no_run_from_going_on():
    plain = through_json(NOW.to_dict())
    plain["config"]["watch"]["lost"] = 40.0  # was allowed once
    found, notes = record.read(plain, "runs/x")
    assert found == NOW
    assert notes == [
        "runs/x was saved with watch.lost=40.0: must be at most 25: its section takes its defaults"
    ]


def test_where_parameters_came_from():
    origin = record.Origin("llama", "org/model@abc", "bfloat16", {"{layer}.bias": "float32"}, "f")
    now = dataclasses.replace(NOW, origin=origin, imported=True, began="b")
    saved = through_json(now.to_dict())
    assert record.read(saved, "x") == (now, [])
    saved["origin"]["flavor"] = "sweet"  # of a later version
    assert record.read(saved, "x")[0] == now
    for name in ("origin", "imported", "began"):  # of an earlier one
        del saved[name]
    assert record.read(saved, "x")[0] == NOW


def test_an_identity_is_of_all_of_a_record():
    same = record.read(through_json(NOW.to_dict()), "x")[0]
    other = dataclasses.replace(NOW, step=7)
    assert NOW.identity() == same.identity() != other.identity()
    origin = record.Origin("llama", "org/model@abc", "bfloat16", {}, "fingerprint")
    converted = dataclasses.replace(NOW, origin=origin, imported=True)
    bare = dataclasses.replace(converted, bare=True)  # of the same files, and no longer them
    assert bare.identity() != converted.identity()
