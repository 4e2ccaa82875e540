"""The text itself: the negative log-likelihood of each next token."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sharding import collectives
from training import chunks
from training.chunks import Chunk


class Losses(NamedTuple):
    """Sums over the predicted tokens.

    Attributes:
      loss: negative log-likelihoods, nats.
      z_loss: squared logarithms of the softmax's normalizer.
    """

    loss: jax.Array
    z_loss: jax.Array


@dataclasses.dataclass(frozen=True)
class NextToken:
    """The measure: weight x loss + z_loss x the squared logarithm of the normalizer.

    Attributes:
      z_loss: weight of that.
      weight: of the text.
    """

    z_loss: float = 0.0
    weight: float = 1.0
    teacher = None
    sums = Losses

    def objective(self, sums: Losses) -> jax.Array:
        return self.weight * sums.loss + self.z_loss * sums.z_loss

    def __call__(self, chunk: Chunk, learn: bool) -> tuple[Losses, jax.Array | None]:
        found = chunks.softmax(chunk.logits_MV, chunk.vocab)
        is_target = chunk.is_target_MV
        at_target_M = jnp.sum(jnp.where(is_target, chunk.logits_MV, 0), axis=-1)
        at_target_M = collectives.total(at_target_M, chunk.vocab)
        log_z_M, weights_M = found.log_z_M, chunk.weights_M
        terms = Losses(log_z_M - at_target_M, jnp.square(log_z_M))
        if not learn:
            return terms, None
        # d log Z / d logits is the softmax; the z-loss adds 2 log Z of that.
        of_softmax_M = weights_M * (self.weight + 2 * self.z_loss * log_z_M) / found.total_M
        slope = found.exps_MV * of_softmax_M[:, None]
        return terms, slope - jnp.where(is_target, self.weight * weights_M[:, None], 0)
