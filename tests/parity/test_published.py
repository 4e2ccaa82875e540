"""Published shapes: `transformers` builds as many parameters from the config.json that we write."""

import pytest
import torch
import transformers

from model.families import FAMILIES
from tests.configs.published import PUBLISHED
from tests.configs.test_runs import run_of
from tests.families import config_of


def parameters_of(values):
    """Of theirs, made of shapes alone."""
    values = dict(values)
    architecture = getattr(transformers, FAMILIES[values["model_type"]].ARCHITECTURE)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        model = architecture(config)
    buffers = {k: b for k, b in model.named_buffers() if k.endswith("e_score_correction_bias")}
    return sum(x.numel() for x in (*model.parameters(), *buffers.values()))


def without_padding(model):
    tables = 1 if model.tie_embeddings else 2
    padding = (model.padded_vocab_size - model.vocab_size) * model.embed_dim
    return model.num_params() - tables * padding


@pytest.mark.parametrize("name", PUBLISHED)
def test_as_many_parameters(name):
    published = config_of(PUBLISHED[name])[1]
    assert parameters_of(PUBLISHED[name]) == without_padding(published)
    model = run_of(name).model
    family = FAMILIES[PUBLISHED[name]["model_type"]]
    written = {"model_type": family.MODEL_TYPE, **family.to_hf(model)}
    assert parameters_of(written) == without_padding(model)
