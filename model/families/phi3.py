"""Phi-3 and Phi-4 (Abdin et al. 2024): Llama, some of whose weights lie together."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names, Weight

MODEL_TYPE = "phi3"
ARCHITECTURE = "Phi3ForCausalLM"
PREFIX = "model."

_ATTENTION, _MLP = "layers.{layer}.self_attn", "layers.{layer}.mlp"


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("attention_bias", False)
    hf.expect("partial_rotary_factor", 1.0)
    hf.ignore("attention_dropout", "embd_pdrop", "resid_pdrop")
    hf.ignore("auto_map", "original_max_position_embeddings")  # which "longrope" alone reads
    window = hf.get("sliding_window", 0)
    return ModelConfig(**common.shape(hf), **common.rope(hf), sliding_window=window)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        "hidden_act": "silu",
        "sliding_window": config.sliding_window or None,
        "original_max_position_embeddings": config.max_length,
        "pad_token_id": None,  # unsaid it is 32000, which a smaller table has no row for
    }


def names(config: ModelConfig) -> Names:
    qkv = ("attention.query", "attention.key", "attention.value")
    layers = (
        *common.PRE_NORMS,
        Weight(qkv, f"{_ATTENTION}.qkv_proj.weight", "(n h) d -> d n h", axis=1),
        Weight("attention.out", f"{_ATTENTION}.o_proj.weight", "d (n h) -> n h d"),
    )
    dense = (
        Weight(("mlp.gate", "mlp.up"), f"{_MLP}.gate_up_proj.weight", "f d -> d f", axis=1),
        Weight("mlp.down", f"{_MLP}.down_proj.weight", "d f -> f d"),
    )
    return common.names(config, layers, dense)
