"""Every shipped run that says it has a published shape has that of the config.json."""

import dataclasses
from typing import Any

import pytest

from model.config import ModelConfig
from model.families import FAMILIES
from tests.configs.published import PUBLISHED
from tests.configs.test_runs import run_of
from tests.families import config_of

OF_A_RUN = {
    *("max_length", "init_std", "spare_vocab"),
    *("dtype", "quantization", "remat", "remat_save", "remat_offload", "scan_unroll", "logits_mb"),
}
"""What a run decides for itself."""

LONGER = {"rope_scaling", "attention_scale"}
"""What was changed for longer rows, after the pretraining that these runs are."""

EXTENDED = {"llama_1b", "llama3_405b", "gemma3_4b", "deepseek_v3", "gpt_oss_20b"}


def shape(model: ModelConfig) -> dict[str, Any]:
    """What of a decoder the weights and logits depend on."""
    found = {k: v for k, v in dataclasses.asdict(model).items() if k not in OF_A_RUN}
    if not model.dense_layers:
        del found["mlp_dim"]
    for key in ("balance_weight", "bias_rate", "router_z_weight"):
        del found["moe"][key]
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_the_published_shape(name):
    _, published, hf = config_of(PUBLISHED[name])
    assert hf.unread() == {}
    ours, theirs = shape(run_of(name).model), shape(published)
    different = {key for key, value in theirs.items() if ours[key] != value}
    assert different <= (LONGER if name in EXTENDED else set()), {
        key: (ours[key], theirs[key]) for key in different
    }
    assert bool(different) == (name in EXTENDED)
    assert run_of(name).model.max_length <= published.max_length


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_written_describes_the_run(name):
    """Of a model that is trained by a shipped run, for whoever has `transformers`."""
    model = run_of(name).model
    family = FAMILIES[PUBLISHED[name]["model_type"]]
    written = {"model_type": family.MODEL_TYPE, **family.to_hf(model)}
    assert shape(config_of(written)[1]) == shape(model)
    assert config_of(written)[1].max_length == model.max_length
