"""How far a decoder's distribution q is from a teacher's p, and the gradient in q's logits.

With s the logits (softened), q = softmax(s), and g the derivative of the divergence in q:

    d D / d s_i = q_i (g_i - the sum over j of q_j g_j)

Vocabularies may be split: sums over them are over devices, too.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sharding import collectives
from sharding.collectives import Axes


class Diverged(NamedTuple):
    """Attributes:
    value_M: the divergence of each token, nats.
    slope_MV: its gradient in the logits of q.
    """

    value_M: jax.Array
    slope_MV: jax.Array


def forward_kl(log_p: jax.Array, log_q: jax.Array, vocab: Axes, weight: float) -> Diverged:
    """KL(p | q): the sum of p log(p / q). Its gradient is q - p."""
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    value = collectives.total(jnp.sum(_times(p, log_p - log_q), axis=-1), vocab)
    return Diverged(value, q - p)


def reverse_kl(log_p: jax.Array, log_q: jax.Array, vocab: Axes, weight: float) -> Diverged:
    """KL(q | p): g is log(q / p) + 1."""
    q = jnp.exp(log_q)
    terms = _times(q, log_q - log_p)
    value = collectives.total(jnp.sum(terms, axis=-1), vocab)
    return Diverged(value, terms - q * value[:, None])


def jsd(log_p: jax.Array, log_q: jax.Array, vocab: Axes, weight: float) -> Diverged:
    """w KL(p | m) + (1 - w) KL(q | m), with m = w p + (1 - w) q (Agarwal et al. 2024).

    g is (1 - w) log(q / m): all that comes of m itself adds up to nothing.
    """
    p, q = jnp.exp(log_p), jnp.exp(log_q)
    log_m = jnp.logaddexp(log_p + jnp.log(weight), log_q + jnp.log1p(-weight))
    of_q = _times(q, log_q - log_m)
    of_p = collectives.total(jnp.sum(_times(p, log_p - log_m), axis=-1), vocab)
    total_q = collectives.total(jnp.sum(of_q, axis=-1), vocab)
    slope = (1 - weight) * (of_q - q * total_q[:, None])
    return Diverged(weight * of_p + (1 - weight) * total_q, slope)


def _times(p: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """p x log_ratio; nothing where p is: ids past the vocabulary have no logarithm."""
    return jnp.where(p > 0, p * log_ratio, 0)


DIVERGENCES: Mapping[str, Callable[[jax.Array, jax.Array, Axes, float], Diverged]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
}
