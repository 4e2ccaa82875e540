"""Qwen 3 (Yang et al. 2025), dense: Llama with normalised queries and keys."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names

MODEL_TYPE = "qwen3"
ARCHITECTURE = "Qwen3ForCausalLM"
PREFIX = "model."


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("attention_bias", False)
    hf.ignore("attention_dropout")
    return ModelConfig(
        **common.shape(hf, head_dim=128),
        **common.rope(hf),
        **common.later_windows(hf),
        qk_norm=True,
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        **common.later_windows_to_hf(config),
        "hidden_act": "silu",
        "attention_bias": False,
    }


def names(config: ModelConfig) -> Names:
    layers = (*common.PRE_NORMS, *common.ATTENTION, *common.QK_NORMS)
    return common.names(config, layers, common.GATED_MLP)
