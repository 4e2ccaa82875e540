"""Which keys of a config may change when a run goes on."""

import dataclasses
from pathlib import Path

import pytest

from checkpointing import continuation
from configs import door
from configs.base import base
from errors import UserError
from training.config import RunConfig

CONFIG = door.read(base(), "cpu")
RUN = {"config": CONFIG.to_dict(), "dataset": "abc", "step": 200}


def changed(section: str, **values) -> RunConfig:
    part = dataclasses.replace(getattr(CONFIG, section), **values)
    return dataclasses.replace(CONFIG, **{section: part})


def check(config: RunConfig, /, dataset: str = "abc", **run) -> list[str]:
    return continuation.check({**RUN, **run}, config, dataset, Path("runs/x"))


def test_every_key_has_a_rule():
    rules = {continuation.FROZEN, continuation.SCHEDULE, continuation.FREE}
    for section, values in CONFIG.to_dict().items():
        for key in values:
            assert continuation.rule(f"{section}.{key}") in rules
    assert continuation.rule("model.dtype") == continuation.FREE
    assert continuation.rule("model.mlp_dim") == continuation.FROZEN


def test_same_config_goes_on():
    assert check(CONFIG) == []


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
    (key,) = continuation.differences(CONFIG.to_dict(), config.to_dict())
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
        changed("checkpoint", every=7),
        changed("evaluation", every=7),
        changed("report", prompts=("a",)),
    ],
)
def test_free_keys_may_change_and_are_told(config):
    (line,) = check(config)
    assert "->" in line


def test_schedule_may_change_only_ahead_of_the_run():
    with pytest.raises(UserError, match=r"train.steps was 1000, now 2000"):
        check(changed("train", steps=2000))  # a cosine of another length
    before_it_matters = check(changed("train", steps=2000), step=100)  # all warm-up
    assert before_it_matters == ["train.steps: 1000 -> 2000"]
    wsd = dataclasses.replace(CONFIG.optimizer, schedule="wsd", decay_steps=100)
    old = dataclasses.replace(CONFIG, optimizer=wsd)
    longer = dataclasses.replace(old, train=dataclasses.replace(old.train, steps=2000))
    assert check(longer, config=old.to_dict()) == ["train.steps: 1000 -> 2000"]
    with pytest.raises(UserError, match=r"train.steps"):
        check(longer, config=old.to_dict(), step=950)  # the decay has begun
    with pytest.raises(UserError, match=r"train.steps"):
        check(changed("train", steps=150))  # fewer than are done


def test_other_data_is_refused():
    with pytest.raises(UserError, match="was abc, now it is xyz"):
        check(CONFIG, dataset="xyz")


def test_differences_take_lists_for_tuples():
    assert continuation.differences({"a": {"b": (1, 2)}}, {"a": {"b": [1, 2]}}) == {}
    assert continuation.differences({"a": {"b": 1}}, {"a": {}}) == {"a.b": (1, None)}
