"""Of pairs of answers in the rows of a batch, how likely each answer is.

The answers of a pair are two documents in one row, one after the other: the better one is segment
2i + 1, the other one 2i + 2. What is learned of them (weights of 1) is the answer, not the prompt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Losses = dict[str, jax.Array]


class Answers(NamedTuple):
    """Of the better (chosen) or the other answers of the pairs of a batch: [B, P], float32.

    Attributes:
      log_prob: of the answer, given its prompt; nats.
      reference: likewise, from the reference; 0 without one.
      tokens: of the answer; at least 1.
    """

    log_prob: jax.Array
    reference: jax.Array
    tokens: jax.Array


class Pairs(NamedTuple):
    """Attributes:
    chosen, rejected: the answers.
    is_pair: [B, P], whether there is a pair.
    """

    chosen: Answers
    rejected: Answers
    is_pair: jax.Array


def pairs(
    log_probs_BT: jax.Array,
    reference_BT: jax.Array,
    segments_BT: jax.Array,
    weights_BT: jax.Array,
) -> Pairs:
    """The pairs of rows whose tokens may lie in any order.

    Args:
      log_probs_BT, reference_BT: of each target, nats; float32.
      segments_BT: int32; 0 is padding.
      weights_BT: 1 where the target is learned.
    """
    most = segments_BT.shape[1] // 2  # an answer has a token at least

    def summed(x_BT: jax.Array) -> jax.Array:
        def of_row(x_T: jax.Array, segments_T: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(x_T, segments_T, 2 * most + 1)

        return jax.vmap(of_row)(x_BT * weights_BT, segments_BT)

    sums = [summed(x) for x in (log_probs_BT, reference_BT, jnp.ones_like(weights_BT))]
    chosen, rejected = (
        Answers(log_prob[:, i::2], reference[:, i::2], jnp.maximum(tokens[:, i::2], 1))
        for i in (1, 2)
        for log_prob, reference, tokens in [sums]
    )
    tokens = sums[2]
    return Pairs(chosen, rejected, (tokens[:, 1::2] > 0) & (tokens[:, 2::2] > 0))
