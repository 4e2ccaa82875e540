"""Mistral (Jiang et al. 2023): Llama with a sliding window, or, as today, without."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names

MODEL_TYPE = "mistral"
ARCHITECTURE = "MistralForCausalLM"
PREFIX = "model."


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.ignore("attention_dropout")
    window = hf.said("sliding_window", 4096) or 0
    return ModelConfig(**common.shape(hf), **common.rope(hf), sliding_window=window)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        "hidden_act": "silu",
        "sliding_window": config.sliding_window or None,
    }


def names(config: ModelConfig) -> Names:
    return common.names(config, (*common.PRE_NORMS, *common.ATTENTION), common.GATED_MLP)
