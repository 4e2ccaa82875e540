"""Qwen 3 with experts (Yang et al. 2025)."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig, HfConfigError
from model.families.weights import Names
from model.moe_config import MoeConfig

MODEL_TYPE = "qwen3_moe"
ARCHITECTURE = "Qwen3MoeForCausalLM"
PREFIX = "model."


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("attention_bias", False)
    hf.expect("decoder_sparse_step", 1)
    hf.ignore("attention_dropout", "max_window_layers")
    hf.ignore("output_router_logits", "router_aux_loss_coef")  # training's
    dense = hf.get("mlp_only_layers", [])
    if dense != list(range(len(dense))):
        raise HfConfigError(
            f"config.json has mlp_only_layers={dense}: Podium's decoder has layers without experts "
            "before all others"
        )
    moe = MoeConfig(
        num_experts=hf.get("num_experts", hf.get("num_local_experts", 128)),  # of late the latter
        experts_per_token=hf.get("num_experts_per_tok"),
        expert_mlp_dim=hf.get("moe_intermediate_size"),
        first_dense=len(dense),
        renormalise=bool(hf.get("norm_topk_prob", False)),
    )
    window = hf.get("sliding_window", 4096)
    window = window if hf.get("use_sliding_window", False) else 0
    return ModelConfig(
        **common.shape(hf), **common.rope(hf), sliding_window=window, qk_norm=True, moe=moe
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    moe = config.moe
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": config.sliding_window > 0,
        "sliding_window": config.sliding_window or None,
        "num_experts": moe.num_experts,
        "num_experts_per_tok": moe.experts_per_token,
        "moe_intermediate_size": moe.expert_mlp_dim,
        "mlp_only_layers": list(range(moe.first_dense)),
        "decoder_sparse_step": 1,
        "norm_topk_prob": moe.renormalise,
    }


def names(config: ModelConfig) -> Names:
    layers = (*common.PRE_NORMS, *common.ATTENTION, *common.QK_NORMS)
    return common.names(config, layers, common.GATED_MLP, common.EXPERTS)
