"""A teacher's distribution of each next token, beside the text itself (Hinton et al. 2015).

What is minimised of a token is

    mix x cross-entropy  +  (1 - mix) x T^2 x D(p, q)

and beside it the z-loss, whatever the mix.

D: a divergence (divergences.py) between the teacher's softmax(t / T) and the decoder's
softmax(s / T). T^2 makes up for a gradient that softening makes smaller by as much, and is
multiplied once.

Where only the teacher's k likeliest tokens are known, and the mass r beyond them, the teacher is
taken to divide r among all others as the decoder does. So D compares k + 1 outcomes, the last being
"another token": it is never more than the whole divergence, and what is not known has no gradient.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from sharding import collectives
from training import chunks
from training.chunks import Chunk
from training.objectives.divergences import DIVERGENCES
from training.objectives.next_token import NextToken

IDS, LOG_PROBS, REST = "teacher_ids", "teacher_log_probs", "teacher_rest"
"""In a batch: the teacher's likeliest tokens, int32 [B, T, K]; the logarithms of their
probabilities, float [B, T, K]; and of the mass of all others, float [B, T]; softened by the
objective's temperature."""


class Losses(NamedTuple):
    """Sums over the predicted tokens.

    Attributes:
      loss, z_loss: of the text itself (next_token.py).
      distill_loss: T^2 x divergences, nats.
    """

    loss: jax.Array
    z_loss: jax.Array
    distill_loss: jax.Array


@dataclasses.dataclass(frozen=True)
class Distill:
    """The measure.

    Attributes:
      divergence, jsd_weight, temperature, mix: see ObjectiveConfig.
      z_loss: weight of log(Z)^2.
      teacher: its config; None where its likeliest tokens are stored.
    """

    divergence: str
    jsd_weight: float
    temperature: float
    mix: float
    z_loss: float
    teacher: ModelConfig | None
    sums = Losses

    def objective(self, sums: Losses) -> jax.Array:
        text = NextToken(self.z_loss, self.mix).objective(NextToken.sums(sums.loss, sums.z_loss))
        return text + (1 - self.mix) * sums.distill_loss

    def __call__(self, chunk: Chunk, learn: bool) -> tuple[Losses, jax.Array | None]:
        text, slope = NextToken(self.z_loss, self.mix)(chunk, learn)
        log_q = chunks.log_softmax(chunk.logits_MV / self.temperature, chunk.vocab)
        if chunk.teacher_MV is not None:
            log_p = chunks.log_softmax(chunk.teacher_MV / self.temperature, chunk.vocab)
        else:
            log_p = _filled(chunk, log_q)
        diverge = DIVERGENCES[self.divergence]
        value_M, of_logits = diverge(log_p, log_q, chunk.vocab, self.jsd_weight)
        terms = Losses(*text, self.temperature**2 * value_M)
        if slope is None:
            return terms, None
        # s = logits / T: of T^2 one T is left.
        weights_M1 = (1 - self.mix) * self.temperature * chunk.weights_M[:, None]
        return terms, slope + weights_M1 * of_logits


def _filled(chunk: Chunk, log_q: jax.Array) -> jax.Array:
    """The teacher's likeliest tokens, and beyond them its rest in the proportions of q."""
    ids, log_probs = chunk.beside[IDS], chunk.beside[LOG_PROBS].astype(jnp.float32)
    rest = chunk.beside[REST].astype(jnp.float32)
    # They were rounded when they were stored: a distribution again.
    log_all = jnp.logaddexp(jax.nn.logsumexp(log_probs, axis=-1), rest)
    log_probs, rest = log_probs - log_all[:, None], rest - log_all
    known = _written(jnp.full(log_q.shape, -jnp.inf), ids, chunk.ids_V, log_probs)
    is_known = marked(ids, chunk.ids_V)
    others = jnp.sum(jnp.where(is_known, 0, jnp.exp(log_q)), axis=-1)
    log_others = jnp.log(jnp.maximum(collectives.total(others, chunk.vocab), 1e-30))
    return jnp.where(is_known, known, log_q + (rest - log_others)[:, None])


def marked(ids_MK: jax.Array, ids_V: jax.Array) -> jax.Array:
    """Of each token which of a device's part of the vocabulary are among some ids: [M, V]."""
    return _written(jnp.zeros((ids_MK.shape[0], ids_V.size), bool), ids_MK, ids_V, True)


def _written(x_MV: jax.Array, ids_MK: jax.Array, ids_V: jax.Array, values: Any) -> jax.Array:
    here = ids_MK - ids_V[0]
    size = x_MV.shape[1]
    here = jnp.where((here >= 0) & (here < size), here, size)  # out of bounds: dropped
    rows = jnp.arange(x_MV.shape[0])[:, None]
    return x_MV.at[rows, here].set(values, mode="drop")
