"""Every family against logits that `transformers` computed (tests/families_golden.py)."""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import parameters
from model.config import ModelConfig
from model.families import FAMILIES
from model.rope_scaling import RopeScaling
from tests.families import (
    GOLDENS,
    LENGTHS,
    VOCABULARY,
    config_of,
    documents,
    golden,
    largest_difference,
    rows,
    to_params,
    to_tensors,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=list(FAMILIES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@functools.cache
def ours(name: str) -> tuple[Any, Any, Any, Any]:
    """The golden, our outline and parameters of it, and what reads its config.json."""
    found = golden(name)
    family, config, hf = config_of(found.config)
    params = to_params(family, config, found.tensors())
    return found, parameters.outline(config), params, hf


def test_nothing_else_is_golden():
    assert {file.stem for file in GOLDENS.iterdir()} == set(FAMILIES)


def difference(config: ModelConfig, params: Any, expected: list[np.ndarray]) -> float:
    """Of the logits of documents alone and packed."""
    outline = parameters.outline(config)

    @jax.jit
    def logits(params, tokens, positions, segments):
        return parameters.bind(outline, params)(tokens, positions, segments)

    given = rows()
    computed = logits(params, given.tokens, given.positions, given.segments)
    return largest_difference(computed, expected)


def test_logits_of_documents_alone_and_packed(name):
    found, outline, params, _ = ours(name)
    assert [len(one) for one in found.logits] == list(LENGTHS)
    assert np.std(np.concatenate(found.logits)) > 1  # they tell something
    assert difference(outline.config, params, found.logits) < TOLERANCE


def others(config: ModelConfig) -> dict[str, ModelConfig]:
    """The same decoder with one of its options as it is not: the parameters are as many."""
    made: dict[str, Any] = {"attention_scale": 0.31, "norm_eps": 1e-3}
    if config.positions == "rope":
        made["rope_theta"] = 77.0
    if config.rope_local_theta:
        made["rope_local_theta"] = 55.0
    if config.sliding_window:
        made["sliding_window"] = config.sliding_window + 1
        made["layer_pattern"] = config.layer_pattern[::-1]
    off: dict[str, Any] = {"norm_offset": 0.0, "rope_scaling": RopeScaling(), "embed_scale": 1.0}
    made |= off | {"attention_softcap": 0.0, "logit_softcap": 0.0}
    changed = {key: dataclasses.replace(config, **{key: value}) for key, value in made.items()}
    moe = config.moe
    if moe.num_experts:
        for values in (
            {"renormalise": not moe.renormalise},
            {"route_scale": 1.1 * moe.route_scale},
            {"experts_per_token": moe.experts_per_token + 1},
            {"groups": 1, "groups_per_token": 1},
        ):
            key = f"moe.{next(iter(values))}"
            changed[key] = dataclasses.replace(config, moe=dataclasses.replace(moe, **values))
    return {key: value for key, value in changed.items() if value != config}


@pytest.mark.slow
def test_every_option_matters(name):
    found, outline, params, _ = ours(name)
    differences = {
        key: difference(config, params, found.logits)
        for key, config in others(outline.config).items()
    }
    assert len(differences) >= 2
    assert min(differences.values()) > 20 * TOLERANCE, differences
    print(f"{name}: {min(differences.values()):.1e} to {max(differences.values()):.1e}")


def test_decoding_token_by_token(name):
    found, outline, params, _ = ours(name)

    @jax.jit
    def extend(params, cache, tokens_B1, start):
        model = parameters.bind(outline, params)
        at = jnp.broadcast_to(start, tokens_B1.shape)
        features = model.features(tokens_B1, at, jnp.ones_like(tokens_B1), cache, start)
        return model.unembed(features.x_BTD[:, 0]), features.cache

    first, second = documents()
    tokens = np.stack([first, np.resize(second, len(first))])
    cache, steps = outline.empty_cache(2, len(first)), []
    for index in range(len(first)):
        logits, cache = extend(params, cache, tokens[:, index : index + 1], index)
        steps.append(np.asarray(logits))
    logits_BTV = np.stack(steps, axis=1)[..., :VOCABULARY]
    for row, expected in enumerate(found.logits):
        difference = np.abs(logits_BTV[row, : len(expected)] - expected).max()
        assert difference < TOLERANCE


def test_every_weight_goes_back_as_it_came(name):
    found, outline, params, _ = ours(name)
    back = to_tensors(FAMILIES[name], outline.config, params)
    tensors = found.tensors()
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        assert back[key].dtype == np.float32
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_the_config_is_understood_and_goes_back(name):
    _, outline, _, hf = ours(name)
    assert hf.unread() == {}
    family = FAMILIES[name]
    written = {"model_type": name, **json.loads(json.dumps(family.to_hf(outline.config)))}
    _, again, hf_again = config_of(written)
    assert again == outline.config
    assert hf_again.unread() == {}
