"""What most families have alike: the keys of Llama's config.json, and the names of its weights."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.families.hf_config import HfConfig, HfConfigError
from model.families.weights import Weight
from model.rope_scaling import RopeScaling

ATTENTION = (
    Weight("attention.query", "layers.{layer}.self_attn.q_proj.weight", "(n h) d -> d n h"),
    Weight("attention.key", "layers.{layer}.self_attn.k_proj.weight", "(k h) d -> d k h"),
    Weight("attention.value", "layers.{layer}.self_attn.v_proj.weight", "(k h) d -> d k h"),
    Weight("attention.out", "layers.{layer}.self_attn.o_proj.weight", "d (n h) -> n h d"),
)
GATED_MLP = (
    Weight("mlp.gate", "layers.{layer}.mlp.gate_proj.weight", "f d -> d f"),
    Weight("mlp.up", "layers.{layer}.mlp.up_proj.weight", "f d -> d f"),
    Weight("mlp.down", "layers.{layer}.mlp.down_proj.weight", "d f -> f d"),
)
PRE_NORMS = (
    Weight("attention_norm.scale", "layers.{layer}.input_layernorm.weight"),
    Weight("mlp_norm.scale", "layers.{layer}.post_attention_layernorm.weight"),
)


def outside(config: ModelConfig) -> tuple[Weight, ...]:
    """The tables and the last norm."""
    weights = [
        Weight("embedding", "embed_tokens.weight"),
        Weight("final_norm.scale", "norm.weight"),
    ]
    if not config.tie_embeddings:
        weights.append(Weight("unembedding", "/lm_head.weight"))
    return tuple(weights)


def shape(hf: HfConfig) -> dict[str, Any]:
    """The sizes of a decoder."""
    heads, width = hf.get("num_attention_heads"), hf.get("hidden_size")
    return {
        "vocab_size": hf.get("vocab_size"),
        "num_layers": hf.get("num_hidden_layers"),
        "embed_dim": width,
        "num_heads": heads,
        "num_kv_heads": hf.get("num_key_value_heads", heads),
        "head_dim": hf.get("head_dim", width // heads),
        "mlp_dim": hf.get("intermediate_size"),
        "max_length": hf.get("max_position_embeddings"),
        "norm_eps": float(hf.get("rms_norm_eps")),
        "tie_embeddings": bool(hf.get("tie_word_embeddings", False)),
        "init_std": float(hf.get("initializer_range", 0.02)),
        "spare_vocab": True,  # published tables often have more rows than the tokenizer has ids
    }


def shape_to_hf(config: ModelConfig) -> dict[str, Any]:
    """What `shape` reads."""
    return {
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_dim,
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
    }


def rope(hf: HfConfig, theta: float = 10_000.0) -> dict[str, Any]:
    """Rotary positions.

    Args:
      hf: a config.json of today, with rope_parameters, or of before, with rope_theta and
        rope_scaling.
      theta: where it has none.
    """
    of_today = hf.get("rope_parameters", {})
    given = of_today or hf.get("rope_scaling", {})
    found = hf.get("rope_theta", theta)
    return {
        "rope_theta": float(of_today.get("rope_theta", found)),
        "rope_scaling": scaling(given, hf.get("max_position_embeddings")),
    }


def scaling(given: Mapping[str, Any], max_length: int) -> RopeScaling:
    """What `rope_scaling` says.

    Raises:
      HfConfigError: it is of a kind that Podium does not have.
    """
    values = {key: value for key, value in given.items() if value is not None}
    kind = values.pop("rope_type", values.pop("type", "default"))
    values.pop("type", None)
    values.pop("rope_theta", None)
    known = {
        "default": (),
        "linear": ("factor",),
        "llama3": ("factor", "original_length", "low_freq_factor", "high_freq_factor"),
        "yarn": (
            *("factor", "original_length", "beta_fast", "beta_slow", "truncate"),
            *("attention_factor",),
        ),
    }
    if kind not in known:
        raise HfConfigError(
            f"config.json scales rotary positions by {kind!r}: Podium knows {', '.join(known)}"
        )
    original = values.pop("original_max_position_embeddings", max_length)
    if "original_length" in known[kind]:
        values["original_length"] = original
    if unknown := [key for key in values if key not in known[kind]]:
        raise HfConfigError(
            f"config.json scales rotary positions by {kind!r} with {unknown[0]}="
            f"{values[unknown[0]]!r}, which Podium does not have"
        )
    for key, value in values.items():
        if type(value) is int and key != "original_length":
            values[key] = float(value)
    return RopeScaling(kind="none" if kind == "default" else kind, **values)


def rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    """What `rope` reads, in the form that every version of `transformers` reads."""
    return {"rope_theta": config.rope_theta, "rope_scaling": scaling_to_hf(config.rope_scaling)}


def scaling_to_hf(scaling: RopeScaling) -> dict[str, Any] | None:
    """What `scaling` reads."""
    if scaling.kind == "none":
        return None
    keys = {
        "linear": (),
        "llama3": ("low_freq_factor", "high_freq_factor"),
        "yarn": ("beta_fast", "beta_slow", "truncate", "attention_factor"),
    }[scaling.kind]
    values = {key: getattr(scaling, key) for key in keys}
    if not values.get("attention_factor", 1.0):
        del values["attention_factor"]
    if scaling.kind != "linear":
        values["original_max_position_embeddings"] = scaling.original_length
    return {"rope_type": scaling.kind, "factor": scaling.factor, **values}
