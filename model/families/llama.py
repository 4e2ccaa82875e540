"""Llama 2, Llama 3 and what is built like them, such as SmolLM2 (Touvron et al. 2023)."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names

MODEL_TYPE = "llama"
ARCHITECTURE = "LlamaForCausalLM"
PREFIX = "model."


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("attention_bias", False)
    hf.expect("mlp_bias", False)
    hf.expect("rope_interleaved", False)
    hf.ignore("attention_dropout", "is_llama_config", "transformers.js_config")
    hf.ignore("pretraining_tp")  # in how many products, not which
    return ModelConfig(**common.shape(hf), **common.rope(hf))


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def names(config: ModelConfig) -> Names:
    return common.names(config, (*common.PRE_NORMS, *common.ATTENTION), common.GATED_MLP)
