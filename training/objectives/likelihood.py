"""The log-likelihood of each token, from which the loss of a whole answer is made.

Its gradient takes the way of the next-token loss: the same loop over chunks, in which a token
counts as much as what is made of its log-likelihood asks for.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from model.config import ModelConfig
from sharding import collectives
from training import chunks, head
from training.chunks import Chunk
from training.head import Learn
from training.objectives.next_token import NextToken


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def log_likelihoods(
    config: ModelConfig,
    mesh: Mesh,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
) -> jax.Array:
    """log P(target) of each token, nats: [B, T], float32.

    The backward pass computes the logits once more: what a token counts is known only then.

    Args:
      config: of the decoder.
      mesh: of all arrays.
      table_VD: float32.
      x_BTD: features, in the dtype that matrices are multiplied in.
      targets_BT: ids.
    """
    found: jax.Array = chunks.of_tokens(config, mesh, at_target, table_VD, x_BTD, targets_BT)
    return found


def at_target(chunk: Chunk) -> jax.Array:
    """log P(target) of a chunk's tokens: [M]."""
    found = chunks.softmax(chunk.logits_MV, chunk.vocab)
    at_target_M = jnp.sum(jnp.where(chunk.is_target_MV, chunk.logits_MV, 0), axis=-1)
    return collectives.total(at_target_M, chunk.vocab) - found.log_z_M


_Kept = tuple[tuple[jax.Array, ...], tuple[()] | None]


def _forward(config: ModelConfig, mesh: Mesh, *arrays: Any) -> tuple[jax.Array, _Kept]:
    values = tuple(array.value for array in arrays)
    moves = () if arrays[0].perturbed else None  # the table; as a form, which is not traced
    return log_likelihoods(config, mesh, *values), (values, moves)


def _backward(
    config: ModelConfig, mesh: Mesh, kept: _Kept, slope_BT: jax.Array
) -> tuple[jax.Array | None, jax.Array, None]:
    values, moves = kept
    learn: Learn = "features" if moves is None else "both"
    # The loss of a token is minus its log-likelihood.
    gradients = head.gradients(config, mesh, NextToken(), learn, *values, -slope_BT)
    return gradients.table, gradients.features, None


log_likelihoods.defvjp(_forward, _backward, symbolic_zeros=True)
