"""The door: what a config may hold, and what a tokenizer must be for it."""

import dataclasses

import numpy as np
import pytest
from ml_collections import config_dict

from configs import door
from configs.base import base
from data.tokenizer import ByteTokenizer
from errors import UserError
from training.config import RunConfig


def read(**changes) -> RunConfig:
    """The base config with changes, such as train__steps=3."""
    config = base()
    for name, value in changes.items():
        section, _, key = name.partition("__")
        with config.unlocked(), config[section].ignore_type():
            config[section][key] = value
    return door.read(config, "cpu")


def test_auto_is_what_the_platform_does_well():
    assert [door.read(base(), p).model.dtype for p in ("cpu", "gpu", "tpu")] == [
        "float32",
        "bfloat16",
        "bfloat16",
    ]
    assert read(model__dtype="bfloat16").model.dtype == "bfloat16"


def test_lists_become_tuples_and_whole_numbers_floats():
    run = read(report__prompts=["a", "b"], optimizer__learning_rate=1)
    assert run.report.prompts == ("a", "b")
    assert isinstance(run.optimizer.learning_rate, float)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(train__steps=1.5), "config.train.steps=1.5: must be a whole number"),
        (dict(train__steps=True), "config.train.steps=True: must be a whole number"),
        (dict(train__steps="3"), "config.train.steps='3': must be a whole number"),
        (dict(train__steps=np.int64(3)), "must be a whole number"),
        (dict(model__bias=1), "config.model.bias=1: must be True or False"),
        (dict(data__source=3), "config.data.source=3: must be text"),
        (dict(optimizer__beta1="x"), "config.optimizer.beta1='x': must be a number"),
        (dict(optimizer__eps=float("nan")), "config.optimizer.eps=nan: must be finite"),
        (dict(report__prompts="abc"), "config.report.prompts='abc': must be a list"),
        (dict(report__prompts=("a", 1)), "config.report.prompts=1: must be text"),
        (dict(model__norm="batch"), "config.model.norm='batch': choose one of rmsnorm, layernorm"),
        (dict(model__dtype="float16"), "choose one of float32, bfloat16"),
        (dict(optimizer__schedule="linear"), "config.optimizer.schedule='linear': choose one of"),
        (dict(train__steps=-1), "config.train.steps=-1: must be at least 1"),
        (dict(mesh__fsdp=-2), "config.mesh.fsdp=-2: give a number of devices"),
        (dict(report__top_p=0.0), r"config.report.top_p=0.0: must lie in \(0, 1\]"),
        (dict(report__temperature=-1.0), "config.report.temperature=-1.0: must not be negative"),
        (dict(report__max_tokens=0), "config.report.max_tokens=0: must be at least 1"),
        (dict(data__sequence_length=4096), "is longer than config.model.max_length=512"),
        (dict(evaluation__stride=1000), "config.evaluation.stride=1000 is longer than"),
        (dict(model__num_layer=3), r"unknown config key model.num_layer: did you mean .*layers\?"),
        (
            dict(data__tokenizer=config_dict.placeholder(str)),
            "config.data.tokenizer is not set: this config leaves it to you: give "
            "--config.data.tokenizer=PATH/tokenizer.json",
        ),
        (
            dict(data__tokenizer=None, model__vocab_size=128256),
            "config.data.tokenizer is not set: this config needs a tokenizer of 128,256 ids: give",
        ),
        (dict(data__data_dir=None), "config.data.data_dir is not set: .*.data_dir=VALUE"),
    ],
)
def test_what_cannot_be_is_one_line(changes, says):
    with pytest.raises(UserError, match=says) as error:
        read(**changes)
    assert "\n" not in str(error.value)


BYTES = ByteTokenizer()  # 258 ids


@pytest.mark.parametrize("changes", [{}, dict(vocab_size=258), dict(vocab_size=290)])
def test_vocabularies_that_fit(changes):
    run = read(**{f"model__{key}": value for key, value in changes.items()})
    door.check_vocabulary(run, BYTES)
    assert door.with_vocabulary(run, 258).model.vocab_size == changes.get("vocab_size", 258)


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (257, "config.model.vocab_size=257 is smaller than the tokenizer's 258 ids: set it to 0"),
        (291, "config.model.vocab_size=291 is far larger than the tokenizer's 258 ids: .*"),
        (128256, "or set config.model.spare_vocab=True if that is meant"),
    ],
)
def test_vocabularies_that_do_not_fit(size, says):
    with pytest.raises(UserError, match=says):
        door.check_tokenizer(read(model__vocab_size=size), BYTES)


def test_a_large_vocabulary_may_be_meant():
    door.check_tokenizer(read(model__vocab_size=128256, model__spare_vocab=True), BYTES)


def test_a_prompt_must_leave_room_for_a_token():
    run = read(model__max_length=64, data__sequence_length=64, report__prompts=("a" * 62,))
    door.check_tokenizer(run, BYTES)  # with BOS 63 of 64
    report = dataclasses.replace(run.report, prompts=("b", "é" * 31 + "c"))
    with pytest.raises(UserError, match=r"'é{20}\.\.\.' has 64 tokens, BOS included") as error:
        door.check_tokenizer(dataclasses.replace(run, report=report), BYTES)
    assert "\n" not in str(error.value)
