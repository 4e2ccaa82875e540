"""Mixtral (Jiang et al. 2024): Mistral with experts in the place of MLPs."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names, Weight
from model.moe_config import MoeConfig

MODEL_TYPE = "mixtral"
ARCHITECTURE = "MixtralForCausalLM"
PREFIX = "model."

_EXPERT = "layers.{layer}.block_sparse_moe.experts.{expert}"


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.ignore("attention_dropout")
    hf.ignore("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")  # training's
    shape = common.shape(hf)
    moe = MoeConfig(
        num_experts=hf.get("num_local_experts"),
        experts_per_token=hf.get("num_experts_per_tok"),
        expert_mlp_dim=shape["mlp_dim"],
    )
    window = hf.get("sliding_window", 0)
    return ModelConfig(**shape, **common.rope(hf, 1e6), sliding_window=window, moe=moe)


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        "hidden_act": "silu",
        "sliding_window": config.sliding_window or None,
        "num_local_experts": config.moe.num_experts,
        "num_experts_per_tok": config.moe.experts_per_token,
        "intermediate_size": config.moe.expert_mlp_dim,
    }


def names(config: ModelConfig) -> Names:
    experts = (
        Weight("mlp.router", "layers.{layer}.block_sparse_moe.gate.weight", "e d -> d e"),
        Weight("mlp.gate", f"{_EXPERT}.w1.weight", "f d -> d f"),
        Weight("mlp.up", f"{_EXPERT}.w3.weight", "f d -> d f"),
        Weight("mlp.down", f"{_EXPERT}.w2.weight"),
    )
    return common.names(config, (*common.PRE_NORMS, *common.ATTENTION), experts=experts)
