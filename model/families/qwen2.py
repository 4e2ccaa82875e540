"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names

MODEL_TYPE = "qwen2"
ARCHITECTURE = "Qwen2ForCausalLM"
PREFIX = "model."


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("use_mrope", False)
    hf.ignore("attention_dropout")
    return ModelConfig(
        **common.shape(hf), **common.rope(hf), **common.later_windows(hf), qkv_bias=True
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        **common.later_windows_to_hf(config),
        "hidden_act": "silu",
    }


def names(config: ModelConfig) -> Names:
    layers = (*common.PRE_NORMS, *common.ATTENTION, *common.QKV_BIASES)
    return common.names(config, layers, common.GATED_MLP)
