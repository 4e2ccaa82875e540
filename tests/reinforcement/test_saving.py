"""What reinforcement made is a workdir as others: read, started from, and not gone on in."""

import dataclasses

import jax
import numpy as np
import pytest

from checkpointing import imported, record, starting
from checkpointing.workdir import TOKENIZER, Workdir
from configs import door
from configs.base import base
from data.tokenizer import ByteTokenizer
from errors import UserError
from inference.loading import load_run
from model import parameters
from reinforcement import saving
from tests.training.sharded import MODEL
from training.tuning import TuningConfig

CONFIG = dataclasses.replace(
    door.read(base(), "cpu"), model=dataclasses.replace(MODEL, vocab_size=258)
)


@pytest.fixture
def source(tmp_path):
    workdir = Workdir(str(tmp_path / "source"))
    workdir.local.mkdir()
    params = jax.jit(lambda: parameters.initialize(CONFIG.model, 3))()
    saved = record.Record(CONFIG, "stream", "dataset", tokens=99)
    imported.publish(workdir.path, params, saved.to_dict())
    ByteTokenizer().save(workdir.local / TOKENIZER)
    (workdir.local / "hf").mkdir()
    (workdir.local / "hf" / "config.json").write_text("{}")
    return workdir


def test_it_is_read_and_started_from_but_not_gone_on_in(source, tmp_path):
    loaded, target = load_run(source), Workdir(str(tmp_path / "target"))
    moved = jax.tree.map(lambda x: x + 1, loaded.trained.params)
    saving.check(target)
    saving.save(loaded, source, moved, target)

    again = load_run(target)
    jax.tree.map(np.testing.assert_array_equal, again.trained.params, moved)
    was, now = loaded.trained.record, again.trained.record
    assert now == dataclasses.replace(
        was, bare=True, began=was.identity(), parameters=now.parameters
    )
    assert (now.dataset, now.config) == ("dataset", CONFIG)  # eval.py knows its data
    assert again.tokenizer.fingerprint == ByteTokenizer.fingerprint
    assert again.prompt("x") == loaded.prompt("x")
    assert (target.local / "hf" / "config.json").read_text() == "{}"

    start = starting.find(str(target))
    assert (start.step, start.record) == (0, now)
    with pytest.raises(UserError, match=r"has a model without an optimizer's state: train from it"):
        starting.check(target)
    starting.check(source)
    with pytest.raises(UserError, match=r"has checkpoints already: choose another --to$"):
        saving.check(target)


def test_adapters_are_merged_and_the_whole_is_written(source, tmp_path):
    """As load_run has a run of adapters: a plain model, and a config that says how it was tuned."""
    loaded, target = load_run(source), Workdir(str(tmp_path / "target"))
    tuned = dataclasses.replace(CONFIG, tuning=TuningConfig("lora"))
    of_run = dataclasses.replace(loaded.trained.record, config=tuned, began="base")
    loaded = loaded._replace(trained=loaded.trained._replace(config=tuned, record=of_run))
    saving.save(loaded, source, loaded.trained.params, target)
    again = load_run(target).trained
    assert again.config == CONFIG
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.trained.params)


def test_each_result_of_a_run_has_an_identity_of_its_own(source, tmp_path):
    loaded, found = load_run(source), [load_run(source).trained.record]
    for name, change in (("one", 1.0), ("other", 2.0), ("again", 1.0)):
        target = Workdir(str(tmp_path / name))
        moved = jax.tree.map(lambda x, change=change: x + change, loaded.trained.params)
        saving.save(loaded, source, moved, target)
        found.append(starting.find(str(target)).record)
    base, one, other, again = (record.identity() for record in found)
    assert len({base, one, other}) == 3
    assert again == one  # the same parameters, made of the same
