"""Causal attention within documents, a block of queries and of keys at a time, in plain JAX.

Memory is linear in length, forward and backward: what is kept is the output and the logarithm of
each softmax's normalizer (Dao et al. 2022, Rabe & Staats 2021). Blocks that no query may look at,
after the diagonal or before the window, are not computed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

BLOCK = 256  # queries, and keys, at a time


class _How(NamedTuple):
    """Attributes:
    block: queries and keys of a block.
    window: as of model.attention.visible.
    softcap: as of model.attention.attend.
    precision: of matrix products, forward and backward: that of where attention was called.
    """

    block: int
    window: int
    softcap: float
    precision: Any


def attend(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    *,
    window: int = 0,
    softcap: float = 0.0,
    sinks_N: jax.Array | None = None,
    block: int = BLOCK,
) -> jax.Array:
    """What `model.attention.attend` computes, of whole rows.

    Args:
      q_BTNH, k_BTKH, v_BTKH, segments_BT, window, softcap, sinks_N: see there.
      block: queries and keys at a time.

    Returns:
      [B, T, N, H] in v's dtype. Softmax is in float32.
    """
    batch, length, heads, size = q_BTNH.shape
    kv_heads = k_BTKH.shape[2]
    block = min(block, length)
    padding = -length % block

    def headed(x_BTNH: jax.Array) -> jax.Array:
        """[B, T, K x G, H] -> [B, K, G, T padded, H]."""
        x = jnp.pad(x_BTNH, ((0, 0), (0, padding), (0, 0), (0, 0)))
        return x.reshape(batch, length + padding, kv_heads, -1, size).transpose(0, 2, 3, 1, 4)

    q = headed((q_BTNH.astype(jnp.float32) * size**-0.5).astype(q_BTNH.dtype))
    k, v = headed(k_BTKH)[:, :, 0], headed(v_BTKH)[:, :, 0]
    segments = jnp.pad(segments_BT, ((0, 0), (0, padding)), constant_values=-1)
    sinks = jnp.full(heads, -jnp.inf) if sinks_N is None else sinks_N.astype(jnp.float32)
    config: Any = jax.config  # its attributes are made at run time
    how = _How(block, window, softcap, config.jax_default_matmul_precision)
    out = _attend(how, q, k, v, segments, sinks.reshape(kv_heads, -1))
    return out.transpose(0, 3, 1, 2, 4)[:, :length].reshape(q_BTNH.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    how: _How, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, sinks: jax.Array
) -> jax.Array:
    """Queries [B, K, G, T, H], scaled; keys and values [B, K, T, H]; sinks [K, G]."""
    return _forward(how, q, k, v, segments, sinks)[0]


def _backward(
    how: _How, kept: tuple[jax.Array, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, jax.Array]:
    with jax.default_matmul_precision(how.precision):  # this is traced elsewhere
        return _gradients(how, kept, slope)


def _block(x: jax.Array, i: jax.Array, size: int, axis: int = -2) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, axis)


def _first(how: _How, i: jax.Array) -> jax.Array:
    """The first block of keys that the queries of block `i` look at."""
    if not how.window:
        return jnp.zeros_like(i)
    return jnp.maximum(i * how.block - how.window + 1, 0) // how.block


def _scores(
    how: _How, q: jax.Array, k: jax.Array, segments: jax.Array, i: jax.Array, j: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Scores [B, K, G, Q, S] of the queries of block i and the keys of block j; which count."""
    scores = jnp.einsum("BKGQH,BKSH->BKGQS", q, k, preferred_element_type=jnp.float32)
    if how.softcap:
        scores = how.softcap * jnp.tanh(scores / how.softcap)
    at = jnp.arange(how.block)
    behind = (i - j) * how.block + at[:, None] - at
    near = behind >= 0
    if how.window:
        near &= behind < how.window
    q_segments, k_segments = (_block(segments, n, how.block, 1) for n in (i, j))
    seen = near & (q_segments[:, :, None] == k_segments[:, None, :])
    return scores, seen[:, None, None]


def _forward(
    how: _How, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, sinks: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    batch, kv_heads, groups, length, size = q.shape

    def one(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_i = _block(q, i, how.block)

        def more(j: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            mixed, top, total = state
            scores, seen = _scores(how, q_i, _block(k, j, how.block), segments, i, j)
            scores = jnp.where(seen, scores, -jnp.inf)
            higher = jnp.maximum(top, jnp.max(scores, axis=-1))
            # Before the first key that a query sees there is nothing: -inf - -inf is no number.
            safe = jnp.where(jnp.isneginf(higher), 0, higher)
            keep = jnp.exp(top - safe)
            weights = jnp.exp(scores - safe[..., None])
            v_j = _block(v, j, how.block)
            mixed = mixed * keep[..., None] + jnp.einsum(
                "BKGQS,BKSH->BKGQH",
                weights.astype(v.dtype),
                v_j,
                preferred_element_type=jnp.float32,
            )
            return mixed, higher, total * keep + jnp.sum(weights, axis=-1)

        rows = (batch, kv_heads, groups, how.block)
        top = jnp.broadcast_to(sinks[:, :, None], rows)
        total = jnp.where(jnp.isneginf(top), 0.0, 1.0)
        start = (jnp.zeros((*rows, size), jnp.float32), top, total)
        mixed, top, total = jax.lax.fori_loop(_first(how, i), i + 1, more, start)
        return (mixed / total[..., None]).astype(v.dtype), top + jnp.log(total)

    out, log_z = jax.lax.map(one, jnp.arange(length // how.block))
    # [blocks, B, K, G, Q, ...] -> [B, K, G, T, ...]
    out = jnp.moveaxis(out, 0, 3).reshape(q.shape)
    log_z = jnp.moveaxis(log_z, 0, 3).reshape(q.shape[:-1])
    # Both are kept where the output of attention is: neither is computed again for the other.
    out, log_z = (checkpoint_name(x, "attention") for x in (out, log_z))
    return out, (q, k, v, segments, sinks, out, log_z)


def _gradients(
    how: _How, kept: tuple[jax.Array, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, jax.Array]:
    q, k, v, segments, sinks, out, log_z = kept
    # What each query's weights cannot change, since they sum to one.
    along = jnp.sum(out.astype(jnp.float32) * slope.astype(jnp.float32), axis=-1)

    def one(
        grads: tuple[jax.Array, jax.Array], i: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        q_i, slope_i = _block(q, i, how.block), _block(slope, i, how.block)
        log_z_i, along_i = (_block(x, i, how.block, -1)[..., None] for x in (log_z, along))

        def more(j: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            grad_k, grad_v, grad_q = state
            k_j, v_j = _block(k, j, how.block), _block(v, j, how.block)
            scores, seen = _scores(how, q_i, k_j, segments, i, j)
            weights = jnp.where(seen, jnp.exp(scores - log_z_i), 0)
            of_weights = jnp.einsum(
                "BKGQH,BKSH->BKGQS", slope_i, v_j, preferred_element_type=jnp.float32
            )
            of_scores = weights * (of_weights - along_i)
            if how.softcap:
                of_scores = of_scores * (1 - jnp.square(scores / how.softcap))
            of_scores, weights = of_scores.astype(q.dtype), weights.astype(v.dtype)

            def add(total: jax.Array, equation: str, *of: jax.Array) -> jax.Array:
                more = jnp.einsum(equation, *of, preferred_element_type=jnp.float32)
                there = _block(total, j, how.block) + more
                return jax.lax.dynamic_update_slice_in_dim(total, there, j * how.block, -2)

            grad_v = add(grad_v, "BKGQS,BKGQH->BKSH", weights, slope_i)
            grad_k = add(grad_k, "BKGQS,BKGQH->BKSH", of_scores, q_i)
            grad_q += jnp.einsum(
                "BKGQS,BKSH->BKGQH", of_scores, k_j, preferred_element_type=jnp.float32
            )
            return grad_k, grad_v, grad_q

        start = (*grads, jnp.zeros(q_i.shape, jnp.float32))
        *grads_, grad_q = jax.lax.fori_loop(_first(how, i), i + 1, more, start)
        return (grads_[0], grads_[1]), grad_q.astype(q.dtype)

    zeros = jnp.zeros(k.shape, jnp.float32)
    blocks = jnp.arange(q.shape[-2] // how.block)
    (grad_k, grad_v), grad_q = jax.lax.scan(one, (zeros, zeros), blocks)
    grad_q = jnp.moveaxis(grad_q, 0, 3).reshape(q.shape)
    of_sinks = -jnp.sum(jnp.exp(sinks[:, :, None] - log_z) * along, axis=(0, -1))
    return grad_q, grad_k.astype(k.dtype), grad_v.astype(v.dtype), None, of_sinks


_attend.defvjp(_forward, _backward)
