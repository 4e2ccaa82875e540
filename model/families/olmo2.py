"""OLMo 2 (Walsh et al. 2024): norms of what sub-layers give, and of whole queries and keys."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names, Weight

MODEL_TYPE = "olmo2"
ARCHITECTURE = "Olmo2ForCausalLM"
PREFIX = "model."


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("attention_bias", False)
    hf.ignore("attention_dropout")
    return ModelConfig(
        **common.shape(hf), **common.rope(hf), norms="post", qk_norm=True, qk_norm_over="heads"
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        "hidden_act": "silu",
        "attention_bias": False,
    }


def names(config: ModelConfig) -> Names:
    norms = (
        Weight("attention_post_norm.scale", "layers.{layer}.post_attention_layernorm.weight"),
        Weight("mlp_post_norm.scale", "layers.{layer}.post_feedforward_layernorm.weight"),
        *(weight._replace(form="(n h) -> n h") for weight in common.QK_NORMS),
    )
    return common.names(config, (*norms, *common.ATTENTION), common.GATED_MLP)
