"""GPT-2 (Radford et al. 2019)."""

from typing import Any

from model.config import ModelConfig
from model.families.hf_config import HfConfig
from model.families.weights import Names, Weight

MODEL_TYPE = "gpt2"
ARCHITECTURE = "GPT2LMHeadModel"
PREFIX = "transformer."

_QKV = ("query", "key", "value")


def from_hf(hf: HfConfig) -> ModelConfig:
    hf.expect("activation_function", "gelu_new", "gelu_pytorch_tanh")
    hf.expect("scale_attn_weights", True)
    hf.expect("scale_attn_by_inverse_layer_idx", False)
    hf.expect("add_cross_attention", False)
    hf.ignore("attn_pdrop", "embd_pdrop", "resid_pdrop", "reorder_and_upcast_attn", "n_ctx")
    hf.ignore("summary_activation", "summary_first_dropout", "summary_proj_to_labels")
    hf.ignore("summary_type", "summary_use_proj", "task_specific_params")
    heads, width = hf.get("n_head"), hf.get("n_embd")
    return ModelConfig(
        vocab_size=hf.get("vocab_size"),
        spare_vocab=True,
        num_layers=hf.get("n_layer"),
        embed_dim=width,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        mlp_dim=hf.get("n_inner", 4 * width),
        max_length=hf.get("n_positions"),
        norm="layernorm",
        norm_eps=float(hf.get("layer_norm_epsilon", 1e-5)),
        positions="learned",
        mlp="gelu",
        bias=True,
        tie_embeddings=bool(hf.get("tie_word_embeddings", True)),
        init_std=float(hf.get("initializer_range", 0.02)),
    )


def to_hf(config: ModelConfig) -> dict[str, Any]:
    return {
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_layer": config.num_layers,
        "n_embd": config.embed_dim,
        "n_head": config.num_heads,
        "n_inner": config.mlp_dim,
        "n_positions": config.max_length,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
    }


def names(config: ModelConfig) -> Names:
    outside: tuple[Weight, ...] = (
        Weight("embedding", "wte.weight"),
        Weight("position_embedding", "wpe.weight"),
        Weight("final_norm.scale", "ln_f.weight"),
        Weight("final_norm.bias", "ln_f.bias"),
    )
    attention = tuple(f"attention.{name}" for name in _QKV)
    biases = tuple(f"attention.{name}_bias" for name in _QKV)
    layers = (
        Weight("attention_norm.scale", "h.{layer}.ln_1.weight"),
        Weight("attention_norm.bias", "h.{layer}.ln_1.bias"),
        Weight(attention, "h.{layer}.attn.c_attn.weight", "d (n h) -> d n h", axis=1),
        Weight(biases, "h.{layer}.attn.c_attn.bias", "(n h) -> n h"),
        Weight("attention.out", "h.{layer}.attn.c_proj.weight", "(n h) d -> n h d"),
        Weight("attention.out_bias", "h.{layer}.attn.c_proj.bias"),
        Weight("mlp_norm.scale", "h.{layer}.ln_2.weight"),
        Weight("mlp_norm.bias", "h.{layer}.ln_2.bias"),
    )
    dense = (
        Weight("mlp.up", "h.{layer}.mlp.c_fc.weight"),
        Weight("mlp.up_bias", "h.{layer}.mlp.c_fc.bias"),
        Weight("mlp.down", "h.{layer}.mlp.c_proj.weight"),
        Weight("mlp.down_bias", "h.{layer}.mlp.c_proj.bias"),
    )
    if not config.tie_embeddings:
        outside = (*outside, Weight("unembedding", "/lm_head.weight"))
    return Names(outside, layers, dense)
