"""Which family says what a model is, and how weights are laid out over files."""

import dataclasses
import json

import pytest

from checkpointing.record import Origin, Record
from configs import door
from configs.base import base
from conversion import exporting
from errors import UserError
from model.families import FAMILIES
from model.families.hf_config import HfConfig
from tests.conversion.models import LLAMA
from tests.families import golden

LLAMA_CONFIG = FAMILIES["llama"].from_hf(HfConfig(LLAMA))
RUN = door.read(base(), "cpu")


def record(origin: Origin | None = None, **changes) -> Record:
    model = dataclasses.replace(LLAMA_CONFIG, **changes)
    return Record(dataclasses.replace(RUN, model=model), "s", "d", origin=origin)


def test_a_family_that_says_all_of_it():
    free = {"remat": "full", "dtype": "bfloat16", "vocab_multiple": 64, "init_std": 0.5}
    assert exporting.family_of(record(**free), "").MODEL_TYPE == "llama"
    assert exporting.family_of(record(), "llama") is FAMILIES["llama"]


def test_keys_that_none_can_say():
    with pytest.raises(
        UserError, match=r"no family .* can say config.model with .*logit_softcap=7"
    ):
        exporting.family_of(record(logit_softcap=7.0, bias=True, positions="learned"), "")
    with pytest.raises(UserError, match=r"^--family=llama can say") as error:
        exporting.family_of(record(logit_softcap=7.0), "llama")
    assert "logit_softcap=7.0" in str(error.value)
    with pytest.raises(UserError, match=r"^--family=camel: Podium has .*llama"):
        exporting.family_of(record(), "camel")


def test_files_are_filled_in_order():
    assert list(exporting._shards([3, 3, 3, 9, 1, 1], 6)) == [[0, 1], [2], [3], [4, 5]]
    assert list(exporting._shards([1], 6)) == [[0]]


def test_layers_that_are_not_written_are_not_announced(tmp_path):
    """Those of DeepSeek-V3 that predict further tokens, which conversion leaves out."""
    original = golden("deepseek_v3").config | {"num_nextn_predict_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(original))
    family = FAMILIES["deepseek_v3"]
    model = family.from_hf(HfConfig(original))
    written = exporting._config(family, model, tmp_path, None, "bfloat16")
    assert written["num_nextn_predict_layers"] == 0
    assert written["qk_rope_head_dim"] == original["qk_rope_head_dim"]
