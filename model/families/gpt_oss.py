"""gpt-oss (OpenAI 2025): attention with sinks, and experts with biases and bounds."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig
from model.families.weights import Names, Weight
from model.moe_config import MoeConfig

MODEL_TYPE = "gpt_oss"
ARCHITECTURE = "GptOssForCausalLM"
PREFIX = "model."

_UNSAID = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""How positions are stretched where nothing is said of it."""
_TURNS = ("sliding_attention", "full_attention")
_EXPERTS = "layers.{layer}.mlp.experts"


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("attention_bias", True)
    hf.expect("swiglu_alpha", 1.702)
    hf.expect("swiglu_limit", 7.0)
    hf.ignore("attention_dropout", "experts_per_token", "initial_context_length")
    hf.ignore("output_router_logits", "router_aux_loss_coef")  # training's
    if not hf.get("rope_parameters", {}) and not hf.get("rope_scaling", {}):
        hf.suppose({"rope_scaling": _UNSAID})
    shape = common.shape(hf, head_dim=64)
    kinds = hf.get("layer_types", [_TURNS[layer % 2] for layer in range(shape["num_layers"])])
    moe = MoeConfig(
        num_experts=hf.get("num_local_experts"),
        experts_per_token=hf.get("num_experts_per_tok"),
        expert_mlp_dim=shape["mlp_dim"],
    )
    return ModelConfig(
        **shape,
        **common.rope(hf, 150_000.0),
        **common.windows(hf.said("sliding_window", 128), kinds),
        mlp="clamped_swiglu",
        bias=True,
        attention_sinks=True,
        moe=moe,
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    found = {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        **common.windows_to_hf(config),
        "hidden_act": "silu",
        "attention_bias": True,
        "swiglu_limit": 7.0,
        "num_local_experts": config.moe.num_experts,
        "num_experts_per_tok": config.moe.experts_per_token,
        "intermediate_size": config.moe.expert_mlp_dim,
    }
    found["rope_scaling"] = found["rope_scaling"] or {"rope_type": "default"}  # unsaid it is YaRN
    return found


def names(config: ModelConfig) -> Names:
    width = 2 * config.moe.expert_mlp_dim
    in_turns = (*range(0, width, 2), *range(1, width, 2))  # gate and up, of theirs
    gate_up = ("mlp.gate", "mlp.up")
    biases = ("mlp.gate_bias", "mlp.up_bias")
    layers = (
        *common.PRE_NORMS,
        *common.ATTENTION,
        *common.QKV_BIASES,
        Weight("attention.out_bias", "layers.{layer}.self_attn.o_proj.bias"),
        Weight("attention.sinks", "layers.{layer}.self_attn.sinks"),
    )
    experts = (
        Weight("mlp.router", "layers.{layer}.mlp.router.weight", "e d -> d e"),
        Weight("mlp.router_bias", "layers.{layer}.mlp.router.bias"),
        Weight(gate_up, f"{_EXPERTS}.gate_up_proj", axis=2, order=in_turns),
        Weight(biases, f"{_EXPERTS}.gate_up_proj_bias", axis=1, order=in_turns),
        Weight("mlp.down", f"{_EXPERTS}.down_proj", "e f d -> e d f"),
        Weight("mlp.down_bias", f"{_EXPERTS}.down_proj_bias"),
    )
    return common.names(config, layers, experts=experts)
