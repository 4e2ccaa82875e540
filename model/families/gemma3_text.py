"""Gemma 3 (Gemma Team 2025), what of it reads text: five layers with windows for one without."""

from typing import Any

from model.config import ModelConfig
from model.families import common
from model.families.hf_config import HfConfig, HfConfigError
from model.families.weights import Names

MODEL_TYPE = "gemma3_text"
ARCHITECTURE = "Gemma3ForCausalLM"
PREFIX = "model."

_UNSAID = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
}
"""Within the config of a model that sees, too, only what differs from these is written."""


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.suppose(_UNSAID)
    hf.expect("hidden_activation", "gelu_pytorch_tanh")
    hf.expect("attention_bias", False)
    hf.expect("use_bidirectional_attention", False)
    hf.expect("attn_logit_softcapping", None)
    hf.ignore("attention_dropout", "cache_implementation", "_sliding_window_pattern")
    shape = common.shape(hf, tied=True)
    every = hf.get("sliding_window_pattern", 6)
    kinds = [
        "sliding_attention" if layer % every else "full_attention"
        for layer in range(1, shape["num_layers"] + 1)
    ]
    kinds = hf.get("layer_types", kinds)
    return ModelConfig(
        **shape,
        **common.windows(hf.get("sliding_window", 4096), kinds),
        **_rope(hf, set(kinds)),
        mlp="geglu",
        norms="both",
        norm_offset=1.0,
        qk_norm=True,
        attention_scale=common.query_scale(hf, 256, shape["head_dim"]),
        logit_softcap=float(hf.get("final_logit_softcapping", 0.0)),
        embed_scale=shape["embed_dim"] ** 0.5,
    )


def _rope(hf: HfConfig, kinds: set[str]) -> dict[str, Any]:
    """Rotary positions: those of today are a config for each kind of layer."""
    today = hf.get("rope_parameters", {})
    everywhere = {"rope_theta": hf.get("rope_theta", 1e6), **hf.get("rope_scaling", {})}
    everywhere |= today.get("full_attention") or {}
    local = {"rope_theta": hf.get("rope_local_base_freq", 1e4)}
    local |= today.get("sliding_attention") or {}
    length = hf.get("max_position_embeddings")
    if kinds == {"sliding_attention"}:
        everywhere = local
    found = {
        "rope_theta": float(everywhere["rope_theta"]),
        "rope_scaling": common.scaling(everywhere, length),
    }
    if len(kinds) > 1:
        if common.scaling(local, length).kind != "none":
            raise HfConfigError("config.json scales rotary positions of sliding_attention layers")
        found["rope_local_theta"] = float(local["rope_theta"])
    return found


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        **common.shape_to_hf(config),
        **common.rope_to_hf(config),
        **common.windows_to_hf(config),
        "rope_local_base_freq": config.rope_local_theta or config.rope_theta,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": common.query_scale_to_hf(config),
        "final_logit_softcapping": config.logit_softcap or None,
    }


def names(config: ModelConfig) -> Names:
    layers = (*common.NORMS_AROUND, *common.ATTENTION, *common.QK_NORMS)
    return common.names(config, layers, common.GATED_MLP)
