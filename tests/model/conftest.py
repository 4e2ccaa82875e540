"""Small decoders of every kind."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import pytest

from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from model.moe_config import MoeConfig

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
}


def small_config(kind: str = "llama", **overrides: Any) -> ModelConfig:
    return ModelConfig(**{**SMALL, **KINDS[kind], **overrides})


@functools.cache
def lively(config: ModelConfig, seed: int = 0) -> Decoder:
    """A decoder whose every parameter matters: norms and biases too are random, and not small."""
    params = jax.jit(parameters.initialize, static_argnums=(0, 1))(config, seed)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [
        leaf * 8 + 0.3 * jax.random.normal(key, leaf.shape)
        if leaf.std() > 0 and leaf.ndim > 1
        else leaf + 0.3 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    return parameters.bind(parameters.outline(config), jax.tree.unflatten(tree, noisy))


@functools.cache
def runner(config: ModelConfig) -> Callable[..., jax.Array]:
    """Logits [B, T, V] of `lively(config)`, compiled."""
    model = lively(config)
    return jax.jit(lambda tokens, positions, segments: model(tokens, positions, segments))


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param
