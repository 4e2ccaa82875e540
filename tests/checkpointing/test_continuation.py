"""Which keys of a config, which data and which versions may change when a run goes on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from checkpointing import continuation, record
from configs import door
from configs.base import base
from data.config import CorpusConfig, StageConfig
from errors import UserError
from training.config import RunConfig
from training.fields import flat

CONFIG = door.read(base(), "cpu")
VERSIONS = {"jax": "0.10.1", "optax": "0.2.6", "the code": "0123456789ab"}
RUN = record.Record(CONFIG, "abc", "data", "held out", VERSIONS, "c0ffee", step=200)


def changed(section: str, **values) -> RunConfig:
    part = dataclasses.replace(getattr(CONFIG, section), **values)
    return dataclasses.replace(CONFIG, **{section: part})


def check(config: RunConfig = CONFIG, *, before: record.Record = RUN, **now) -> list[str]:
    started = dataclasses.replace(RUN, config=config, step=0, **now)
    return continuation.check(before, started, Path("runs/x"))


def test_every_key_has_a_rule_of_its_own():
    mixed = changed(
        "data",
        mixture={"one": CorpusConfig("python_stdlib")},
        stages={"late": StageConfig(9, weights={"one": 1.0})},
    )
    unused = set(continuation.KEYS)
    for key in flat(mixed.to_dict()):
        continuation.rule(key)  # give a new key its place in the table
        section, name, *rest = key.split(".")
        unused -= {key, f"{section}.{name}", ".".join([section, name, "*", *rest[1:]])}
    assert unused == set()
    with pytest.raises(KeyError):
        continuation.rule("data.new")


def test_no_key_has_two_rules():
    listed = [
        f"{section}.{key}"
        for section, rules in continuation._TABLE.items()
        for keys in rules.values()
        for key in keys.split()
    ]
    assert len(listed) == len(set(listed)) == len(continuation.KEYS)
    assert set(continuation.KEYS.values()) == {
        continuation.FROZEN,
        continuation.SCHEDULE,
        continuation.PLACE,
        continuation.AHEAD,
        continuation.FREE,
    }


def test_same_run_goes_on():
    assert check() == []


@pytest.mark.parametrize(
    "config",
    [
        changed("model", mlp_dim=512),
        changed("data", seed=1),
        changed("train", batch_size=64),
        changed("train", seed=1),
        changed("optimizer", weight_decay=0.0),
    ],
)
def test_frozen_keys_are_refused_by_name(config):
    (key,) = continuation.differences(CONFIG, config)
    with pytest.raises(UserError, match=f"{key} was .*, now .*choose another --workdir") as refused:
        check(config)
    assert "\n" not in str(refused.value)


def test_all_refused_keys_are_named():
    config = dataclasses.replace(changed("model", mlp_dim=512), data=changed("data", seed=1).data)
    with pytest.raises(UserError, match=r"data.seed was 0, now 1; model.mlp_dim was 1024, now 512"):
        check(config)


@pytest.mark.parametrize(
    "config",
    [
        changed("mesh", tensor=2),
        changed("train", accumulation=2),
        changed("model", remat="full"),
        changed("model", spare_vocab=True),
        changed("data", eval_split="test"),
        changed("checkpoint", every=7),
        changed("evaluation", every=7),
        changed("report", prompts=("a",)),
        changed("watch", step=1.0),
    ],
)
def test_free_keys_may_change_and_are_told(config):
    (line,) = check(config)
    assert "->" in line


def from_(place: str, tokenizer: str = "/tokenizer.json", teacher: str = "") -> RunConfig:
    data = dataclasses.replace(CONFIG.data, tokenizer=place + tokenizer)
    asked = dataclasses.replace(CONFIG.objective, teacher=teacher)
    train = dataclasses.replace(CONFIG.train, start_from=place)
    return dataclasses.replace(CONFIG, data=data, train=train, objective=asked)


def test_what_was_begun_with_may_be_elsewhere() -> None:
    """The tokenizer of it with it."""
    begun: dict[str, Any] = dict(began="b", teacher="t")
    before = dataclasses.replace(RUN, config=from_("runs/a", teacher="runs/t"), **begun)
    assert check(from_("runs/b", teacher="runs/u"), before=before, **begun) == [
        "data.tokenizer: 'runs/a/tokenizer.json' -> 'runs/b/tokenizer.json'",
        "objective.teacher: 'runs/t' -> 'runs/u'",
        "train.start_from: 'runs/a' -> 'runs/b'",
    ]
    with pytest.raises(UserError, match=r"start_from leads to has changed since it began"):
        check(from_("runs/b", teacher="runs/t"), before=before, began="c", teacher="t")
    with pytest.raises(UserError, match="asks in runs/x has changed since it began, from the"):
        check(from_("runs/a", teacher="runs/u"), before=before, began="b", teacher="u")
    with pytest.raises(UserError, match=r"objective.teacher was 'runs/t', now ''"):
        check(from_("runs/a"), before=before, **begun)
    with pytest.raises(UserError, match=r"train.start_from was 'runs/a', now ''"):
        check(from_("", "runs/a/tokenizer.json", "runs/t"), before=before, **begun)
    with pytest.raises(UserError, match=r"\(data.tokenizer was 'runs/a/tok.*', now 'runs/b/other'"):
        check(from_("runs/b", "/other", "runs/t"), before=before, **begun)


def test_schedule_may_change_only_ahead_of_the_run():
    with pytest.raises(UserError, match=r"train.steps was 1000, now 2000"):
        check(changed("train", steps=2000))  # a cosine of another length
    early = dataclasses.replace(RUN, step=100)  # all warm-up
    assert check(changed("train", steps=2000), before=early) == ["train.steps: 1000 -> 2000"]
    wsd = dataclasses.replace(CONFIG.optimizer, schedule="wsd", decay_steps=100)
    old = dataclasses.replace(RUN, config=dataclasses.replace(CONFIG, optimizer=wsd))
    train = dataclasses.replace(CONFIG.train, steps=2000)
    longer = dataclasses.replace(old.config, train=train)
    assert check(longer, before=old) == ["train.steps: 1000 -> 2000"]
    with pytest.raises(UserError, match=r"train.steps"):
        check(longer, before=dataclasses.replace(old, step=950))  # the decay has begun
    with pytest.raises(UserError, match=r"train.steps"):
        check(changed("train", steps=150))  # fewer than are done


def test_other_training_data_is_refused():
    with pytest.raises(UserError, match="data of runs/x up to step 200 was abc, now it is xyz"):
        check(stream="xyz", dataset="other")


MIXED = changed("data", mixture={"one": CorpusConfig(weight=2.0), "two": CorpusConfig()})


@pytest.mark.parametrize(
    ("key", "values"),
    [
        (
            "data.mixture.one.weight",
            {"mixture": {"one": CorpusConfig(weight=3.0), "two": CorpusConfig()}},
        ),
        ("data.mixture.two.source", {"mixture": {"one": CorpusConfig(weight=2.0)}}),
        ("data.stages.late.after_step", {"stages": {"late": StageConfig(300)}}),
        ("data.skip", {"skip": ("300",)}),
    ],
)
def test_batches_may_change_ahead_of_the_run(key: str, values: dict[str, Any]) -> None:
    before = dataclasses.replace(RUN, config=MIXED)
    other = dataclasses.replace(MIXED, data=dataclasses.replace(MIXED.data, **values))
    assert any(line.startswith(f"{key}: ") for line in check(other, before=before))
    with pytest.raises(UserError, match=rf"{key} was .*, now .*choose another --workdir"):
        check(other, before=before, stream="xyz")  # it is not the same up to here


def test_where_a_corpus_is_and_what_it_is_evaluated_on_may_change() -> None:
    before = dataclasses.replace(RUN, config=MIXED)
    one = CorpusConfig(weight=2.0, eval_split="none", data_dir="/elsewhere")
    moved = {"one": one, "two": CorpusConfig()}
    other = dataclasses.replace(MIXED, data=dataclasses.replace(MIXED.data, mixture=moved))
    assert len(check(other, before=before)) == 2


def test_data_that_is_not_trained_on_may_change_and_is_told():
    (line,) = check(dataset="other")
    assert line == "the dataset: data -> other (the batches trained on are the same)"
    (line,) = check(eval_store="others")
    assert line.startswith("the held-out data: held out -> others: evaluations before and after")
    unknown = dataclasses.replace(RUN, eval_store="")  # an old record: there is nothing to compare
    assert check(before=unknown, eval_store="others") == []


def test_other_versions_are_told_in_one_line():
    newer = {"jax": "0.12.0", "the code": "ba9876543210", "libtpu": "1", "optax": "0.2.6"}
    (line,) = check(versions=newer)
    assert line == (
        "versions: jax 0.10.1 -> 0.12.0, libtpu none -> 1, the code 0123456789ab -> ba9876543210; "
        "from here the run may differ from an uninterrupted one by rounding"
    )
    assert check(commit="another") == []  # the same code may be in another commit
    (line,) = check(before=dataclasses.replace(RUN, versions={}))
    assert line.startswith("versions: those before were not recorded; from here")


def test_a_run_of_an_old_version_goes_on():
    """With keys that are new since then, and some that are gone: a default is no change."""
    saved = json.loads((Path(__file__).parent / "records" / "run-0.json").read_text())
    before, notes = record.read(saved, "runs/x")
    assert len(notes) == 1
    now = dataclasses.replace(RUN, config=before.config, stream=before.stream)
    now = dataclasses.replace(now, dataset=before.dataset)
    (line,) = continuation.check(before, now, "runs/x")
    assert line.startswith("versions: ")
    model = dataclasses.replace(before.config.model, qk_norm=True)
    other = dataclasses.replace(now, config=dataclasses.replace(before.config, model=model))
    with pytest.raises(UserError, match=r"model.qk_norm was False, now True"):
        continuation.check(before, other, "runs/x")


def test_what_a_run_began_with_may_not_change():
    with pytest.raises(UserError, match=r"what config.train.start_from leads to has changed since"):
        check(began="other parameters")
