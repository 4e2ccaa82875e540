"""What most families have alike: the keys of Llama's config.json, and the names of its weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from model.config import Layers, ModelConfig
from model.families.hf_config import HfConfig, HfConfigError
from model.families.weights import Names, Weight
from model.rope_scaling import RopeScaling

ATTENTION = (
    Weight("attention.query", "layers.{layer}.self_attn.q_proj.weight", "(n h) d -> d n h"),
    Weight("attention.key", "layers.{layer}.self_attn.k_proj.weight", "(k h) d -> d k h"),
    Weight("attention.value", "layers.{layer}.self_attn.v_proj.weight", "(k h) d -> d k h"),
    Weight("attention.out", "layers.{layer}.self_attn.o_proj.weight", "d (n h) -> n h d"),
)
QKV_BIASES = (
    Weight("attention.query_bias", "layers.{layer}.self_attn.q_proj.bias", "(n h) -> n h"),
    Weight("attention.key_bias", "layers.{layer}.self_attn.k_proj.bias", "(k h) -> k h"),
    Weight("attention.value_bias", "layers.{layer}.self_attn.v_proj.bias", "(k h) -> k h"),
)
QK_NORMS = (
    Weight("attention.query_norm.scale", "layers.{layer}.self_attn.q_norm.weight"),
    Weight("attention.key_norm.scale", "layers.{layer}.self_attn.k_norm.weight"),
)
GATED_MLP = (
    Weight("mlp.gate", "layers.{layer}.mlp.gate_proj.weight", "f d -> d f"),
    Weight("mlp.up", "layers.{layer}.mlp.up_proj.weight", "f d -> d f"),
    Weight("mlp.down", "layers.{layer}.mlp.down_proj.weight", "d f -> f d"),
)
EXPERTS = (
    Weight("mlp.router", "layers.{layer}.mlp.gate.weight", "e d -> d e"),
    Weight("mlp.gate", "layers.{layer}.mlp.experts.{expert}.gate_proj.weight", "f d -> d f"),
    Weight("mlp.up", "layers.{layer}.mlp.experts.{expert}.up_proj.weight", "f d -> d f"),
    Weight("mlp.down", "layers.{layer}.mlp.experts.{expert}.down_proj.weight"),
)
PRE_NORMS = (
    Weight("attention_norm.scale", "layers.{layer}.input_layernorm.weight"),
    Weight("mlp_norm.scale", "layers.{layer}.post_attention_layernorm.weight"),
)
NORMS_AROUND = (
    Weight("attention_norm.scale", "layers.{layer}.input_layernorm.weight"),
    Weight("attention_post_norm.scale", "layers.{layer}.post_attention_layernorm.weight"),
    Weight("mlp_norm.scale", "layers.{layer}.pre_feedforward_layernorm.weight"),
    Weight("mlp_post_norm.scale", "layers.{layer}.post_feedforward_layernorm.weight"),
)

_KINDS: Mapping[str, Layers] = {"sliding_attention": "local", "full_attention": "global"}


def names(
    config: ModelConfig,
    layers: tuple[Weight, ...],
    dense: tuple[Weight, ...] = (),
    experts: tuple[Weight, ...] = (),
) -> Names:
    """Those of a family that has the tables and the last norm where Llama has them."""
    outside = [
        Weight("embedding", "embed_tokens.weight"),
        Weight("final_norm.scale", "norm.weight"),
    ]
    if not config.tie_embeddings:
        outside.append(Weight("unembedding", "/lm_head.weight"))
    return Names(tuple(outside), layers, dense, experts)


def shape(hf: HfConfig, *, tied: bool = False, head_dim: int = 0) -> dict[str, Any]:
    """The sizes of a decoder.

    Args:
      hf: the config.json.
      tied: whether the output projection is the embedding table where it does not say so.
      head_dim: the size of a head where it does not say it; 0 is the width divided by the heads.
    """
    heads, width = hf.get("num_attention_heads"), hf.get("hidden_size")
    return {
        "vocab_size": hf.get("vocab_size"),
        "num_layers": hf.get("num_hidden_layers"),
        "embed_dim": width,
        "num_heads": heads,
        "num_kv_heads": hf.get("num_key_value_heads", heads),
        "head_dim": hf.get("head_dim", head_dim or width // heads),
        "mlp_dim": hf.get("intermediate_size"),
        "max_length": hf.get("max_position_embeddings"),
        "norm_eps": float(hf.get("rms_norm_eps")),
        "tie_embeddings": bool(hf.get("tie_word_embeddings", tied)),
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


def windows(window: int | None, kinds: Sequence[str]) -> dict[str, Any]:
    """Which layers have a sliding window.

    Args:
      window: of the layers that have one.
      kinds: what `layer_types` says, a kind a layer.

    Raises:
      HfConfigError: a kind that the decoder does not have.
    """
    if unknown := sorted(set(kinds) - set(_KINDS)):
        raise HfConfigError(
            f"config.json has layers of {unknown[0]!r}: Podium knows {', '.join(_KINDS)}"
        )
    if not window or "sliding_attention" not in kinds:
        return {}
    pattern = tuple(_KINDS[kind] for kind in kinds)
    for size in range(1, len(pattern)):
        if all(kind == pattern[index % size] for index, kind in enumerate(pattern)):
            pattern = pattern[:size]
            break
    return {"sliding_window": window, "layer_pattern": () if pattern == ("local",) else pattern}


def windows_to_hf(config: ModelConfig) -> dict[str, Any]:
    """What `windows` is given: sliding_window and layer_types."""
    of_theirs = {ours: theirs for theirs, ours in _KINDS.items()}
    pattern = config.layer_pattern or ("local" if config.sliding_window else "global",)
    kinds = [of_theirs[pattern[layer % len(pattern)]] for layer in range(config.num_layers)]
    return {"sliding_window": config.sliding_window or None, "layer_types": kinds}


def later_windows(hf: HfConfig) -> dict[str, Any]:
    """Windows as Qwen's config.json has them: if at all, in all layers from one on."""
    first, layers = hf.get("max_window_layers", 28), hf.get("num_hidden_layers")
    window = hf.get("sliding_window", 4096)
    kinds = ["full_attention"] * min(first, layers) + ["sliding_attention"] * (layers - first)
    kinds = hf.get("layer_types", kinds)
    return windows(window, kinds) if hf.get("use_sliding_window", False) else {}


def later_windows_to_hf(config: ModelConfig) -> dict[str, Any]:
    """What `later_windows` reads."""
    found = windows_to_hf(config)
    first = found["layer_types"].count("full_attention")
    return {**found, "use_sliding_window": config.sliding_window > 0, "max_window_layers": first}


def query_scale(hf: HfConfig, scalar: float, head_dim: int) -> float:
    """attention_scale of what Gemma calls query_pre_attn_scalar, which is `scalar` if unsaid."""
    found = hf.get("query_pre_attn_scalar", scalar)
    return 0.0 if found == head_dim else float(found**-0.5)


def query_scale_to_hf(config: ModelConfig) -> int:
    """What `query_scale` reads."""
    return round(config.attention_scale**-2) if config.attention_scale else config.head_dim


def rope(hf: HfConfig, theta: float = 10_000.0) -> dict[str, Any]:
    """Rotary positions.

    Args:
      hf: a config.json of today, with rope_parameters, or of before, with rope_theta and
        rope_scaling.
      theta: where it has none.
    """
    given = rope_parameters(hf, theta)
    return {
        "rope_theta": float(given["rope_theta"]),
        "rope_scaling": scaling(given, hf.get("max_position_embeddings")),
    }


def rope_parameters(hf: HfConfig, theta: float = 10_000.0) -> dict[str, Any]:
    """All that a config.json of today or of before says about them, as rope_parameters does."""
    before = {"rope_theta": hf.get("rope_theta", theta), **hf.get("rope_scaling", {})}
    return {**before, **hf.get("rope_parameters", {})}


def scaling(given: Mapping[str, Any], max_length: int) -> RopeScaling:
    """What `rope_parameters` or `rope_scaling` say.

    Raises:
      HfConfigError: it is of a kind that Podium does not have.
    """
    values = {key: value for key, value in given.items() if value is not None}
    older = values.pop("type", "default")
    kind = values.pop("rope_type", older)
    values.pop("rope_theta", None)
    if values.get("partial_rotary_factor") == 1:  # of each head all features are rotated
        del values["partial_rotary_factor"]
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
