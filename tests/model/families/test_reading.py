"""What a config.json says, in the forms of today and of before, and what is refused."""

from typing import Any

import numpy as np
import pytest

from model.families import common
from model.families.hf_config import HfConfigError
from model.families.weights import Weight, to_ours, to_theirs
from model.rope_scaling import RopeScaling
from tests.families import config_of, golden

YARN = {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8, "beta_slow": 1}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def of(name: str, **changes: Any) -> Any:
    """The decoder of a golden's config.json, changed; a key that is None is left out."""
    values = {**golden(name).config, **changes}
    return config_of({key: value for key, value in values.items() if value is not None})[1]


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"rope_type": "default"}, RopeScaling()),
        ({"rope_type": "default", "partial_rotary_factor": 1.0}, RopeScaling()),
        ({"rope_type": "linear", "factor": 4}, RopeScaling("linear", 4.0)),
        (
            {"rope_type": "llama3", **LLAMA3},
            RopeScaling("llama3", 8.0, 16, low_freq_factor=1.0, high_freq_factor=4.0),
        ),
        (
            {"rope_type": "yarn", **YARN, "attention_factor": 1.5, "truncate": False},
            RopeScaling(*("yarn", 4.0, 16), beta_fast=8.0, truncate=False, attention_factor=1.5),
        ),
    ],
)
def test_scaling_of_today_and_of_before(scaling, expected):
    today = of("llama", rope_parameters={**scaling, "rope_theta": 300.0})
    of_before = {"type": scaling["rope_type"], **scaling}
    del of_before["rope_type"]
    before = of("llama", rope_parameters=None, rope_theta=300, rope_scaling=of_before)
    assert today == before
    assert (today.rope_theta, today.rope_scaling) == (300.0, expected)
    assert common.scaling(common.scaling_to_hf(expected) or {}, 64) == expected


def test_nothing_said_of_positions():
    plain = of("llama", rope_parameters=None)
    assert (plain.rope_theta, plain.rope_scaling) == (10_000.0, RopeScaling())
    assert of("mixtral", rope_parameters=None).rope_theta == 1e6
    assert of("gpt_oss", rope_parameters=None).rope_theta == 150_000.0


def test_gemma_3_before_its_positions_were_of_kinds_of_layers():
    before = {"rope_theta": 1000.0, "rope_local_base_freq": 100.0}
    before["rope_scaling"] = {"rope_type": "linear", "factor": 4.0}
    assert of("gemma3_text", rope_parameters=None, **before) == of("gemma3_text")


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss"])
def test_layers_in_turns_where_nothing_says_which(name):
    assert of(name, layer_types=None).layer_pattern == ("local", "global")


@pytest.mark.parametrize(
    ("kinds", "window", "pattern"),
    [("sss", 5, ()), ("fff", 0, ()), ("sfs", 5, ("local", "global")), ("fss", 5, tuple("fss"))],
)
def test_the_shortest_pattern(kinds, window, pattern):
    words = {"s": "sliding_attention", "f": "full_attention"}
    ours = {"s": "local", "f": "global"}
    found = common.windows(5, [words[kind] for kind in kinds])
    pattern = tuple(ours.get(kind, kind) for kind in pattern)
    assert (found.get("sliding_window", 0), found.get("layer_pattern", ())) == (window, pattern)


@pytest.mark.parametrize(
    ("changes", "window", "pattern"),
    [
        ({}, 5, ("global", "local", "local")),
        ({"layer_types": None}, 5, ("global", "local", "local")),
        ({"layer_types": None, "max_window_layers": 0}, 5, ()),
        ({"layer_types": None, "max_window_layers": 9}, 0, ()),
        ({"use_sliding_window": False}, 0, ()),
    ],
)
def test_windows_of_qwen(changes, window, pattern):
    found = of("qwen2", **changes)
    assert (found.sliding_window, found.layer_pattern) == (window, pattern)


def test_mistral_without_a_word_has_a_window_and_with_null_it_has_none():
    values = golden("mistral").config
    assert config_of({**values, "sliding_window": None})[1].sliding_window == 0
    del values["sliding_window"]
    assert config_of(values)[1].sliding_window == 4096


def test_yarn_of_deepseek_is_stretched_from_the_whole_length_if_no_other_is_said():
    said = {"factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    found = of("deepseek_v3", rope_parameters={"rope_type": "yarn", **said}).rope_scaling
    assert (found.original_length, found.attention_factor) == (64, 1.0)


def test_experts_by_either_name():
    assert of("qwen3_moe", num_local_experts=None, num_experts=6) == of("qwen3_moe")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "config.json has hidden_act='gelu': .* do 'silu' here"),
        ("llama", {"attention_bias": True}, "config.json has attention_bias=True: .*"),
        ("llama", {"vocab_size": None}, "config.json has no vocab_size"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "longrope"}},
            "config.json scales rotary positions by 'longrope': Podium knows default, .*",
        ),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "linear",
                    "factor": 2.0,
                    "partial_rotary_factor": 0.5,
                }
            },
            "config.json scales rotary positions by 'linear' with partial_rotary_.*",
        ),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "config.json has scale_attn_by.*"),
        ("gemma2", {"use_bidirectional_attention": True}, "config.json has use_bidirect.*"),
        ("gemma2", {"layer_types": ["chunked"] * 3}, "config.json has layers of 'chunked': .*"),
        ("qwen3_moe", {"mlp_only_layers": [1]}, r"config.json has mlp_only_layers=\[1\]: .*"),
        ("deepseek_v3", {"rope_interleave": False}, "config.json has rope_interleave=False: .*"),
        (
            "deepseek_v3",
            {"rope_parameters": {"rope_type": "yarn", **YARN, "mscale": 1.0, "mscale_all_dim": 2}},
            "config.json scales rotary positions by 'yarn' with mscale=1.0 and mscale_all_dim=2.*",
        ),
        ("gpt_oss", {"swiglu_limit": 9.0}, "config.json has swiglu_limit=9.0: .*"),
    ],
)
def test_what_the_decoder_cannot_do_is_refused_by_name(name, changes, message):
    with pytest.raises(HfConfigError, match=rf"\A{message}\Z"):
        of(name, **changes)


def test_what_nobody_asked_for_is_told():
    assert config_of({**golden("llama").config, "new": 1})[2].unread() == {"new": 1}


def test_a_tensor_of_another_shape():
    weight = Weight(("a", "b"), "x", "(n h) d -> d n h", axis=1)
    shapes = [(3, 4, 2), (3, 1, 2)]
    theirs = np.arange(30.0).reshape(10, 3)
    first, second = to_ours(weight, theirs, shapes)
    assert (first.shape, second.shape) == (*shapes,)
    np.testing.assert_array_equal(second[:, 0], theirs[8:].T)
    np.testing.assert_array_equal(to_theirs(weight, [first, second]), theirs)
    for wrong in (theirs[:9], theirs.T, theirs[None]):
        with pytest.raises(ValueError, match=r"does not fit \(3, 5, 2\)"):
            to_ours(weight, wrong, shapes)
