"""A config that takes its model from what it starts from."""

import dataclasses

import pytest

from checkpointing import record
from checkpointing.workdir import Workdir
from configs import door, start_from
from configs.base import base
from data.config import DataConfig
from errors import UserError
from model.config import ModelConfig
from model.rope_scaling import RopeScaling
from training.config import RunConfig

MODEL = ModelConfig(
    vocab_size=1000,
    num_layers=3,
    embed_dim=48,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=99,
    max_length=777,
    spare_vocab=True,
    sliding_window=5,
    layer_pattern=("local", "global"),
    rope_scaling=RopeScaling(kind="linear", factor=2.0),
    init_std=0.5,
    remat="full",
    dtype="bfloat16",
)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A workdir whose model is MODEL."""
    saved = record.Record(RunConfig(MODEL, DataConfig("python_stdlib", 777)), "none", "none")
    workdir = Workdir(str(tmp_path / "source"))
    workdir.local.mkdir()
    (workdir.local / "tokenizer.json").write_text("{}")
    start = start_from.starting.Start(workdir, 0, saved)
    monkeypatch.setattr(start_from.starting, "find", lambda text: start)
    return workdir


def config_from(source):
    config = base()
    config.train.start_from = str(source)
    return config


def test_without_it_nothing_changes():
    config = base()
    assert start_from.applied(config) == (config, None)


def test_the_model_is_that_of_the_source(source):
    made, told = start_from.applied(config_from(source))
    run = door.read(made, "cpu")
    # How it is computed is not.
    assert run.model == dataclasses.replace(MODEL, remat="none", dtype="float32")
    assert run.data.tokenizer == f"{source}/tokenizer.json"
    assert told == f"model of {source}, and its tokenizer"


def test_what_is_the_run_s_own(source):
    config = config_from(source)
    config.model.init_std = 0.1
    config.model.remat = "save_dots"
    config.model.num_layers = 3  # as it is there
    config.data.tokenizer = "byte"
    made, told = start_from.applied(config)
    run = door.read(made, "cpu")
    assert (run.model.init_std, run.model.remat, run.data.tokenizer) == (0.1, "save_dots", "byte")
    assert told == f"model of {source}"


def test_keys_of_another_model_are_named(source):
    config = config_from(source)
    config.model.mlp_dim = 100
    config.model.rope_scaling.factor = 4.0
    with pytest.raises(UserError) as error:
        start_from.applied(config)
    assert str(error.value) == (
        f"config.train.start_from={source} is another model: config.model.mlp_dim=100, where it "
        "has 99; config.model.rope_scaling.factor=4.0, where it has 2.0; leave these keys out"
    )


def test_a_key_that_the_command_line_sets_to_its_default(source):
    with pytest.raises(UserError, match=r"config.model.num_layers=4, where it has 3"):
        start_from.applied(config_from(source), ["model.num_layers"])
    made, _ = start_from.applied(config_from(source), ["data.tokenizer"])
    assert made.data.tokenizer == "bpe"


def test_a_source_without_a_tokenizer(source):
    (source.local / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer that Podium reads: give --config.data"):
        start_from.applied(config_from(source))


def test_a_run_that_has_begun_needs_no_source(source, tmp_path, monkeypatch):
    run, _ = start_from.applied(config_from(source))
    began = door.read(run, "cpu")
    workdir = Workdir(str(tmp_path / "run"))
    workdir.local.mkdir()
    assert start_from.data_of(began, workdir) == began.data
    workdir.write_run(record.Record(began, "s", "d").to_dict())
    (workdir.local / "tokenizer.json").write_text("{}")

    def gone(text):
        raise UserError("gone")

    monkeypatch.setattr(start_from.starting, "find", gone)
    again, _ = start_from.applied(config_from(source), (), workdir)
    assert door.read(again, "cpu") == began
    own = dataclasses.replace(began.data, tokenizer=str(workdir.path / "tokenizer.json"))
    assert start_from.data_of(began, workdir) == own
    other = dataclasses.replace(began, data=dataclasses.replace(began.data, tokenizer="byte"))
    assert start_from.data_of(other, workdir) == other.data
