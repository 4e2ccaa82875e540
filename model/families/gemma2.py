"""Gemma 2 (Riviere et al. 2024): windows in turns, soft-caps, norms around each sub-layer."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names

MODEL_TYPE = "gemma2"
ARCHITECTURE = "Gemma2ForCausalLM"
PREFIX = "model."

_TURNS = ("sliding_attention", "full_attention")


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_activation", "gelu_pytorch_tanh")
    hf.expect("attention_bias", False)
    hf.expect("use_bidirectional_attention", False)
    hf.ignore("attention_dropout", "cache_implementation", "hidden_act", "sliding_window_size")
    shape = common.shape(hf, tied=True, head_dim=256)
    kinds = hf.get("layer_types", [_TURNS[layer % 2] for layer in range(shape["num_layers"])])
    return ModelConfig(
        **shape,
        **common.rope(hf),
        **common.windows(hf.said("sliding_window", 4096), kinds),
        mlp="geglu",
        norms="both",
        norm_offset=1.0,
        attention_scale=common.query_scale(hf, 256, shape["head_dim"]),
        attention_softcap=float(hf.said("attn_logit_softcapping", 50.0) or 0.0),
        logit_softcap=float(hf.said("final_logit_softcapping", 30.0) or 0.0),
        embed_scale=shape["embed_dim"] ** 0.5,
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        **common.windows_to_hf(config),
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": common.query_scale_to_hf(config),
        "attn_logit_softcapping": config.attention_softcap or None,
        "final_logit_softcapping": config.logit_softcap or None,
    }


def names(config: ModelConfig) -> Names:
    return common.names(config, (*common.NORMS_AROUND, *common.ATTENTION), common.GATED_MLP)
