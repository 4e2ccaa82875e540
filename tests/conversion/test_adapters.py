"""The files of `peft`: whose adapters they are, what is refused; tests/parity has the numbers."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from checkpointing import record
from configs import door
from configs.base import base
from conversion import adapters, exporting
from errors import UserError
from evaluation.trained import Trained
from model import parameters
from model.adapter_config import AdapterConfig
from model.families import FAMILIES
from tests.training.sharded import MODEL, mesh_of
from training.config import TrainConfig
from training.fields import flat
from training.tuning import TuningConfig

FAMILY = FAMILIES["llama"]
ADAPTER = AdapterConfig("lora", 3, 6.0, ("query", "down"))
ORIGIN = record.Origin("llama", "org/model@abc", "bfloat16", {}, "fingerprint")
IMPORT = record.Record(door.read(base(), "cpu"), "none", "none", imported=True, origin=ORIGIN)


def tuned(start: record.Record) -> Trained:
    """Of a run of adapters that started there."""
    model = dataclasses.replace(MODEL, adapter=ADAPTER)
    config = dataclasses.replace(
        IMPORT.config,
        model=model,
        tuning=TuningConfig("lora", 3, 6.0, ("query", "down")),
        train=TrainConfig(start_from="runs/base"),
    )
    saved = record.Record(config, "s", "d", step=3, origin=start.origin, began=start.identity())
    outline = parameters.outline(model)
    shapes, rng = parameters.shapes(outline), np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)
    return Trained(config, saved, 3, outline, params, mesh_of())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    adapters.write(tuned(IMPORT), FAMILY, tmp_path, np.dtype(np.float32))
    return tmp_path


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (IMPORT, ORIGIN.source),
        (dataclasses.replace(IMPORT, imported=False, step=9), None),  # trained on from it
        (dataclasses.replace(IMPORT, bare=True, parameters="p"), None),
        (dataclasses.replace(IMPORT, origin=None), None),
        (dataclasses.replace(IMPORT, origin=dataclasses.replace(ORIGIN, fingerprint="")), None),
    ],
    ids=["converted", "trained", "bare", "of ours", "unknown files"],
)
def test_a_base_is_named_where_it_is_the_published_one(start, named, tmp_path, capsys):
    out = tmp_path / "out"
    exporting.export_adapters(tuned(start), out, FAMILY, "")
    assert json.loads((out / adapters.CONFIG).read_text())["base_model_name_or_path"] == named
    note = "note: adapter_config.json names no base: these adapters are for what runs/base had"
    assert (note in capsys.readouterr().err) == (named is None)


def test_what_was_written_is_read(folder):
    found = adapters.find(folder, FAMILY, MODEL)
    assert found.config == ADAPTER
    config = dataclasses.replace(MODEL, adapter=ADAPTER)
    expected = flat(tuned(IMPORT).params)
    for path, value in flat(adapters.read(found, FAMILY, config)).items():
        np.testing.assert_array_equal(value, expected[path])


def change(folder: Path, **keys: Any) -> None:
    said = json.loads((folder / adapters.CONFIG).read_text()) | keys
    (folder / adapters.CONFIG).write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"alora_invocation_tokens": [1, 2]},
            r"has alora_invocation_tokens=\[1, 2\], which Podium",
        ),
        ({"of_tomorrow": "x"}, "has of_tomorrow='x', which Podium does not have"),
        ({"use_bdlora": {"a": 1}, "lora_bias": True}, "has lora_bias=True, use_bdlora="),
        ({"init_lora_weights": "pissa_niter_16"}, "has init_lora_weights='pissa_niter_16', which"),
        ({"init_lora_weights": "olora"}, "changes the weights that adapters are beside: save"),
        ({"init_lora_weights": "corda", "corda_config": {"a": 1}}, "init_lora_weights='corda'"),
        ({"init_lora_weights": "loftq", "loftq_config": {"bits": 4}}, "init_lora_weights='loftq'"),
    ],
)
def test_what_computes_something_else_is_refused(folder, keys, says):
    change(folder, **keys)
    with pytest.raises(UserError, match=says) as error:
        adapters.find(folder, FAMILY, MODEL)
    assert "\n" not in str(error.value)


def test_what_does_not_matter_is_let_be(folder):
    """As version 0.21 of `peft` writes them; and a key of another that is off."""
    change(
        folder,
        peft_version="0.21.2",
        auto_mapping=None,
        exclude_modules=["lm_head"],
        layers_pattern=None,
        loftq_config={},
        megatron_core="megatron.core",
        qalora_group_size=16,
        alora_invocation_tokens=None,
        ensure_weight_tying=False,
        init_lora_weights="gaussian",
        of_tomorrow=False,
        lora_dropout=0.1,
    )
    assert adapters.find(folder, FAMILY, MODEL).config == ADAPTER
