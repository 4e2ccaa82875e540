"""Ids past the vocabulary, which pad the table, are never drawn and have no part in the loss."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model import parameters
from model.generation import Generator, Sampling
from model.sampling import sample
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from tests.model.conftest import lively, small_config
from tests.model.reference import reference_logits
from training.loss import batch_sums

V, PADDED = 61, 64
KINDS_WITH_PADDING = ["llama", "multi_query", "gemma"]  # one table, two tables, capped logits


@functools.cache
def wild(kind: str) -> dict:
    """Parameters whose padding rows, were they counted, would outweigh all others."""
    config = small_config(kind)
    params = nnx.to_pure_dict(nnx.state(lively(config), nnx.Param))
    name = "embedding" if config.tie_embeddings else "unembedding"
    assert params[name].shape[0] == PADDED
    # Each pair of rows points both ways, so one of the two has a large logit whatever comes.
    rows = 1000 * jnp.sign(params[name][0])
    return params | {name: params[name].at[V:].set(jnp.stack([rows, -rows, rows]))}


def a_batch() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    tokens, targets = rng.integers(0, V, (2, 2, 12), dtype=np.int32)
    weights = np.ones((2, 12), np.float32)
    weights[1, 8:] = 0
    return dict(
        tokens=tokens,
        targets=targets,
        segments=np.ones((2, 12), np.int32),
        positions=np.tile(np.arange(12, dtype=np.int32), (2, 1)),
        weights=weights,
        bytes=np.ones((2, 12), np.int32),
    )


def numpy_logits(kind: str, batch: dict[str, Any]) -> np.ndarray:
    """Float64 [2, 12, 61]: the decoder in plain numpy, with the vocabulary alone."""
    config, params = small_config(kind), jax.tree.map(np.asarray, wild(kind))
    name = "embedding" if config.tie_embeddings else "unembedding"
    params = params | {name: params[name][:V]}
    rows = (
        reference_logits(
            config, params, *(batch[n][i] for n in ("tokens", "positions", "segments"))
        )
        for i in range(2)
    )
    return np.stack(list(rows))


@pytest.mark.parametrize("kind", KINDS_WITH_PADDING)
def test_the_normaliser_sums_over_the_vocabulary_alone(kind: str) -> None:
    batch = a_batch()
    logits = numpy_logits(kind, batch)
    assert logits.shape == (2, 12, V)
    log_z = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    at_target = np.take_along_axis(logits, batch["targets"][..., None], -1)[..., 0]
    outline = parameters.outline(small_config(kind))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    sums = jax.jit(lambda p: batch_sums(parameters.bind(outline, p), batch, mesh, 0.1)[1])(
        wild(kind)
    )
    loss = ((log_z - at_target) * batch["weights"]).sum()
    np.testing.assert_allclose(sums["loss"], loss, rtol=1e-4)
    np.testing.assert_allclose(sums["z_loss"], (log_z**2 * batch["weights"]).sum(), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS_WITH_PADDING)
def test_padding_is_never_drawn(kind: str) -> None:
    outline, batch = parameters.outline(small_config(kind)), a_batch()
    arguments = batch["tokens"], batch["positions"], batch["segments"]
    logits = jax.jit(lambda p: parameters.bind(outline, p)(*arguments))(wild(kind))
    rows = jnp.tile(logits.reshape(-1, PADDED), (40, 1))
    hows = Sampling(0), Sampling(5.0), Sampling(5.0, top_k=63), Sampling(5.0, top_p=0.99)
    for how in hows:
        drawn = sample(rows, jax.random.split(jax.random.key(0), len(rows)), how).tokens_B
        assert int(drawn.min()) >= 0 and int(drawn.max()) < V


def test_a_generator_never_draws_padding() -> None:
    generator = Generator(parameters.outline(small_config()), wild("llama"), Sampling(5.0))
    assert max(generator([5, 6], max_tokens=16, seed=1)) < V


def test_padding_would_be_drawn_if_it_counted() -> None:
    """The parameters above do put these ids to the test."""
    model = parameters.bind(parameters.outline(small_config()), wild("llama"))
    batch = a_batch()
    x_BTD = model.features(batch["tokens"], batch["positions"], batch["segments"]).x_BTD
    unmasked = np.asarray(x_BTD) @ np.asarray(wild("llama")["embedding"]).T
    assert (unmasked.argmax(-1) >= V).all()
