"""Small decoders of every kind."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from model.latent_config import LatentConfig
from model.moe_config import MoeConfig
from model.rope_scaling import RopeScaling

SMALL: dict[str, Any] = dict(
    vocab_size=61,
    vocab_multiple=16,
    num_layers=3,
    embed_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=48,
    max_length=24,
)
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": dict(norm="layernorm", positions="learned", mlp="gelu", bias=True, num_kv_heads=4),
    "multi_query": dict(num_kv_heads=1, tie_embeddings=False),
    "gemma": dict(attention_softcap=20.0, logit_softcap=10.0, sliding_window=5, qk_norm=True),
    "everything": dict(
        norm="layernorm", bias=True, qk_norm=True, tie_embeddings=False, sliding_window=7
    ),
    "mixtral": dict(moe=MoeConfig(num_experts=4, expert_mlp_dim=40, router_z_weight=1e-3)),
    "deepseek": dict(
        mlp="gelu",
        moe=MoeConfig(
            num_experts=8,
            experts_per_token=3,
            expert_mlp_dim=16,
            shared_experts=2,
            first_dense=1,
            scoring="sigmoid",
            route_scale=2.5,
            balance="bias",
            balance_weight=1e-3,
        ),
    ),
    "gemma3": dict(
        norms="both",
        norm_offset=1.0,
        embed_scale=32**0.5,
        mlp="geglu",
        qk_norm=True,
        attention_scale=0.2,
        sliding_window=5,
        layer_pattern=("local", "global"),
        rope_theta=1e5,
        rope_local_theta=1e4,
        rope_scaling=RopeScaling("linear", factor=4.0),
    ),
    "olmo2": dict(norms="post", qk_norm=True, qk_norm_over="heads", tie_embeddings=False),
    "qwen2": dict(
        qkv_bias=True,
        rope_scaling=RopeScaling("llama3", 4.0, original_length=16, high_freq_factor=2.0),
    ),
    "latent": dict(
        num_kv_heads=4,
        latent=LatentConfig(kv_rank=12, query_rank=20, rope_dim=4, value_dim=6),
        rope_scaling=RopeScaling("yarn", 4.0, original_length=8),
        moe=MoeConfig(
            num_experts=8,
            experts_per_token=3,
            expert_mlp_dim=16,
            shared_experts=1,
            first_dense=1,
            scoring="sigmoid",
            groups=4,
            groups_per_token=2,
            balance="bias",
        ),
    ),
    "gpt_oss": dict(
        bias=True,
        mlp="clamped_swiglu",
        attention_sinks=True,
        sliding_window=4,
        layer_pattern=("local", "global", "global"),
        rope_scaling=RopeScaling("yarn", 4.0, original_length=8, truncate=False),
        moe=MoeConfig(num_experts=4, expert_mlp_dim=40),
    ),
}


def small_config(kind: str = "llama", **overrides: Any) -> ModelConfig:
    return ModelConfig(**{**SMALL, **KINDS[kind], **overrides})


@functools.cache
def lively(config: ModelConfig, seed: int = 0) -> Decoder:
    """A decoder whose every parameter matters: norms and biases too are random, and not small."""
    with jax.default_prng_impl("rbg"):  # programs of threefry are slow to compile
        params = jax.jit(parameters.initialize, static_argnums=(0, 1))(config, seed)
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, params))
    rng = np.random.default_rng(seed + 1)
    noisy = []
    for leaf in leaves:
        scale = 8 if leaf.ndim > 1 and leaf.std() > 0 else 1
        noise = 0.3 * rng.standard_normal(leaf.shape, np.float32)
        noisy.append(jnp.asarray(leaf * scale + noise))
    return parameters.bind(parameters.outline(config), jax.tree.unflatten(tree, noisy))


@functools.cache
def runner(config: ModelConfig) -> Callable[..., jax.Array]:
    """Logits [B, T, V] of `lively(config)`, compiled."""
    model = lively(config)
    return jax.jit(lambda tokens, positions, segments: model(tokens, positions, segments))


LONG = ("multi_query", "deepseek")
"""Kinds whose options others have too."""


@pytest.fixture(params=[pytest.param(k, marks=pytest.mark.slow) if k in LONG else k for k in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param
