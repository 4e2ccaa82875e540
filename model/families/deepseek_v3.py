"""DeepSeek-V3 (2024): latent attention, and experts that are chosen by groups and kept busy by a
bias. Its head that predicts one token more is left out."""

import dataclasses
import math
from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig, HfConfigError
from model.families.weights import Names, Weight
from model.latent_config import LatentConfig
from model.moe_config import MoeConfig

MODEL_TYPE = "deepseek_v3"
ARCHITECTURE = "DeepseekV3ForCausalLM"
PREFIX = "model."

_SHARED = "layers.{layer}.mlp.shared_experts"


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("hidden_act", "silu")
    hf.expect("attention_bias", False)
    hf.expect("rope_interleave", True)
    hf.expect("scoring_func", "sigmoid")
    hf.expect("topk_method", "noaux_tc")
    hf.expect("moe_layer_freq", 1)
    hf.expect("rms_norm_eps", 1e-6)  # the norms of latent features have it, whatever is said
    hf.ignore("attention_dropout", "auto_map", "ep_size", "head_dim", "pretraining_tp")
    hf.ignore("qk_head_dim", "num_nextn_predict_layers")
    hf.ignore("aux_loss_alpha", "output_router_logits", "seq_aux")  # training's
    rotated = hf.get("qk_rope_head_dim")
    head_dim = hf.get("qk_nope_head_dim") + rotated
    latent = LatentConfig(
        kv_rank=hf.get("kv_lora_rank"),
        query_rank=hf.said("q_lora_rank", 1536) or 0,
        rope_dim=rotated,
        value_dim=hf.get("v_head_dim"),
    )
    moe = MoeConfig(
        num_experts=hf.get("n_routed_experts"),
        experts_per_token=hf.get("num_experts_per_tok"),
        groups=hf.get("n_group", 8),
        groups_per_token=hf.get("topk_group", 4),
        expert_mlp_dim=hf.get("moe_intermediate_size"),
        shared_experts=hf.get("n_shared_experts", 1),
        first_dense=hf.get("first_k_dense_replace", 3),
        scoring="sigmoid",
        renormalise=bool(hf.get("norm_topk_prob", True)),
        route_scale=float(hf.get("routed_scaling_factor", 2.5)),
        balance="bias",
        balance_weight=1e-4,
    )
    shape = common.shape(hf) | {"head_dim": head_dim}
    return ModelConfig(**shape, **_rope(hf, head_dim), latent=latent, moe=moe)


def _rope(hf: HfConfig, head_dim: int) -> dict[str, Any]:
    """Rotary positions, and what YaRN's mscale_all_dim makes of the scale of scores."""
    given = common.rope_parameters(hf)
    of_rotated, of_all = given.pop("mscale", 0.0), given.pop("mscale_all_dim", 0.0)
    scaling = common.scaling(given, hf.get("max_position_embeddings"))
    found = {"rope_theta": float(given["rope_theta"]), "rope_scaling": scaling}
    if not of_all or scaling.kind == "none":
        return found
    if scaling.kind != "yarn" or of_rotated != of_all:
        raise HfConfigError(
            f"config.json scales rotary positions by {scaling.kind!r} with mscale={of_rotated} and "
            f"mscale_all_dim={of_all}: Podium knows them with 'yarn', and equal"
        )
    found["rope_scaling"] = dataclasses.replace(scaling, attention_factor=1.0)
    found["attention_scale"] = head_dim**-0.5 * _mscale(scaling.factor, of_all) ** 2
    return found


def _mscale(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    found = common.rope_to_hf(config)
    scaling = config.rope_scaling
    if scaling.kind != "yarn" or scaling.factor == 1 or not config.attention_scale:
        return found
    more = math.sqrt(config.attention_scale * config.head_dim**0.5) - 1.0
    weight = round(more / (0.1 * math.log(scaling.factor)), 6)
    both = {"mscale": weight, "mscale_all_dim": weight}
    del found["rope_scaling"]["attention_factor"]
    return {**found, "rope_scaling": {**found["rope_scaling"], **both}}


def to_hf(config: ModelConfig) -> dict[str, Any]:
    moe, latent = config.moe, config.latent
    found = {
        **common.shape_to_hf(config),
        **_rope_to_hf(config),
        "hidden_act": "silu",
        "attention_bias": False,
        "rope_interleave": True,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
        "kv_lora_rank": latent.kv_rank,
        "q_lora_rank": latent.query_rank or None,
        "qk_rope_head_dim": latent.rope_dim,
        "qk_nope_head_dim": config.head_dim - latent.rope_dim,
        "v_head_dim": latent.value_dim,
        "n_routed_experts": moe.num_experts,
        "num_experts_per_tok": moe.experts_per_token,
        "n_group": moe.groups,
        "topk_group": moe.groups_per_token,
        "moe_intermediate_size": moe.expert_mlp_dim,
        "n_shared_experts": moe.shared_experts,
        "first_k_dense_replace": moe.first_dense,
        "norm_topk_prob": moe.renormalise,
        "routed_scaling_factor": moe.route_scale,
        "num_nextn_predict_layers": 0,
    }
    del found["head_dim"]  # of theirs it would be the rotated part
    return found


def names(config: ModelConfig) -> Names:
    latent = config.latent
    plain = config.head_dim - latent.rope_dim
    of_query, of_key = _halves(plain, latent.rope_dim), _halves(latent.kv_rank, latent.rope_dim)
    key_value = ("attention.key_up", "attention.value_up")
    layers = [
        Weight(
            "attention.kv_down",
            "layers.{layer}.self_attn.kv_a_proj_with_mqa.weight",
            "r d -> d r",
            axis=1,
            order=of_key,
        ),
        Weight("attention.kv_down_norm.scale", "layers.{layer}.self_attn.kv_a_layernorm.weight"),
        Weight(key_value, "layers.{layer}.self_attn.kv_b_proj.weight", "(n h) r -> r n h", axis=2),
        Weight("attention.out", "layers.{layer}.self_attn.o_proj.weight", "d (n h) -> n h d"),
    ]
    if latent.query_rank:
        down = "attention.query_down"
        layers += [
            Weight(down, "layers.{layer}.self_attn.q_a_proj.weight", "r d -> d r"),
            Weight(f"{down}_norm.scale", "layers.{layer}.self_attn.q_a_layernorm.weight"),
            Weight(
                "attention.query_up",
                "layers.{layer}.self_attn.q_b_proj.weight",
                "(n h) r -> r n h",
                axis=2,
                order=of_query,
            ),
        ]
    else:
        layers.append(
            Weight(
                "attention.query",
                "layers.{layer}.self_attn.q_proj.weight",
                "(n h) d -> d n h",
                axis=2,
                order=of_query,
            )
        )
    experts = [
        *common.EXPERTS,
        Weight("mlp.balance_bias", "layers.{layer}.mlp.gate.e_score_correction_bias"),
    ]
    if config.moe.shared_experts:
        experts += [
            Weight("mlp.shared.gate", f"{_SHARED}.gate_proj.weight", "f d -> d f"),
            Weight("mlp.shared.up", f"{_SHARED}.up_proj.weight", "f d -> d f"),
            Weight("mlp.shared.down", f"{_SHARED}.down_proj.weight", "d f -> f d"),
        ]
    return common.names(
        config,
        (*common.PRE_NORMS, *layers),
        common.GATED_MLP,
        tuple(experts),
    )


def _halves(plain: int, rotated: int) -> tuple[int, ...]:
    """Where of theirs ours are: they rotate neighbours, and we entry i with entry i + half."""
    turned = (*range(plain, plain + rotated, 2), *range(plain + 1, plain + rotated, 2))
    return (*range(plain), *turned)
