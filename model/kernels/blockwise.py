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

from model.kernels.parts import WHOLE, Gradients, Mixed, Runs, Starts, Tokens, along, scaled

BLOCK = 256  # queries, and keys, at a time


class How(NamedTuple):
    """How attention is computed; it is the `Parts` of a ring, too (see model/kernels/parts.py).

    Attributes:
      block: queries and keys of a block.
      window: as of model.attention.visible.
      softcap: as of model.attention.attend.
      precision: of matrix products, forward and backward: that of where attention was called.
    """

    block: int
    window: int
    softcap: float
    precision: Any

    def padded(self, length: int) -> int:
        return length + -length % self.block

    def forward(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        queries: Tokens,
        keys: Tokens,
        own: bool,
        so_far: Mixed,
    ) -> Mixed:
        del own  # indices say what is seen
        return _mixed(self, q, k, v, queries, keys, so_far)

    def backward(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        queries: Tokens,
        keys: Tokens,
        own: bool,
        mixed: Mixed,
        slope: jax.Array,
        along: jax.Array,
        so_far: Gradients,
    ) -> Gradients:
        del own
        return _gradients(self, q, k, v, queries, keys, mixed.log_z, slope, along, so_far)


def parts(length: int, *, window: int = 0, softcap: float = 0.0, block: int = BLOCK) -> How:
    """What a ring computes with, of runs of `length` tokens; the rest as of `attend`."""
    config: Any = jax.config  # its attributes are made at run time
    return How(min(block, length), window, softcap, config.jax_default_matmul_precision)


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
    return attend_part(
        q_BTNH,
        k_BTKH,
        v_BTKH,
        segments_BT,
        segments_BT,
        window=window,
        softcap=softcap,
        sinks_N=sinks_N,
        block=block,
    )


def attend_part(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    *,
    starts: Starts = WHOLE,
    part: jax.Array | int = 0,
    window: int = 0,
    softcap: float = 0.0,
    sinks_N: jax.Array | None = None,
    block: int = BLOCK,
) -> jax.Array:
    """`attend` of some queries of rows, whose keys are whole.

    Args:
      q_BTNH, q_segments_BT: runs of tokens of each row.
      k_BSKH, v_BSKH, k_segments_BS: of all tokens, in the order of the row.
      starts, part: the queries are this part of the row.
      window, softcap, sinks_N, block: as of `attend`.
    """
    kv_heads, whole = k_BSKH.shape[2], k_BSKH.shape[1]
    number = len(starts[0])
    length = q_BTNH.shape[1] // number
    how = parts(length, window=window, softcap=softcap, block=block)
    runs, row = Runs(number, length, how.padded(length)), Runs(1, whole, how.padded(whole))
    q = runs.headed(scaled(q_BTNH), kv_heads)
    k, v = (row.headed(x, kv_heads)[:, :, 0] for x in (k_BSKH, v_BSKH))
    queries = Tokens(runs.segments(q_segments_BT), jnp.asarray(starts, jnp.int32)[part])
    keys = Tokens(row.segments(k_segments_BS), jnp.zeros(1, jnp.int32))
    sinks = jnp.full(q_BTNH.shape[2], -jnp.inf) if sinks_N is None else sinks_N
    sinks = sinks.astype(jnp.float32).reshape(kv_heads, -1)
    return runs.rows(_attend(how, q, k, v, queries, keys, sinks))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    how: How,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Tokens,
    keys: Tokens,
    sinks: jax.Array,
) -> jax.Array:
    """Queries [B, K, G, T, H], scaled; keys and values [B, K, S, H]; sinks [K, G]."""
    return _forward(how, q, k, v, queries, keys, sinks)[0]


def _forward(
    how: How,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Tokens,
    keys: Tokens,
    sinks: jax.Array,
) -> tuple[jax.Array, tuple[Any, ...]]:
    out = (*q.shape[:-1], v.shape[-1])
    nothing = Mixed(jnp.zeros(out, v.dtype), jnp.broadcast_to(sinks[:, :, None], q.shape[:-1]))
    mixed = _mixed(how, q, k, v, queries, keys, nothing)
    # Both are kept where the output of attention is: neither is computed again for the other.
    mixed = Mixed(*(checkpoint_name(x, "attention") for x in mixed))
    return mixed.out, (q, k, v, queries, keys, sinks, mixed)


def _backward(
    how: How, kept: tuple[Any, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None, None, jax.Array]:
    q, k, v, queries, keys, sinks, mixed = kept
    zeros = Gradients(
        jnp.zeros_like(q), jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32)
    )
    common = along(mixed.out, slope)
    grads = _gradients(how, q, k, v, queries, keys, mixed.log_z, slope, common, zeros)
    of_sinks = -jnp.sum(jnp.exp(sinks[:, :, None] - mixed.log_z) * common, axis=(0, -1))
    return grads.q, grads.k.astype(k.dtype), grads.v.astype(v.dtype), None, None, of_sinks


_attend.defvjp(_forward, _backward)


def _block(x: jax.Array, i: jax.Array, size: int, axis: int = -2) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, axis)


def _put(x: jax.Array, i: jax.Array, block: jax.Array, axis: int = -2) -> jax.Array:
    block = block.astype(x.dtype)
    return jax.lax.dynamic_update_slice_in_dim(x, block, i * block.shape[axis], axis)


class _Blocks(NamedTuple):
    """Which blocks of queries look at which blocks of keys.

    Attributes:
      q_starts, k_starts: index in the row of the first token of each block.
      first, last: the blocks of keys that a block of queries looks at: from the first on, without
        the last. Keys are in the order of the row, so they follow one another.
    """

    q_starts: jax.Array
    k_starts: jax.Array
    first: jax.Array
    last: jax.Array


def _blocks(how: How, queries: Tokens, keys: Tokens) -> _Blocks:
    q_starts, k_starts = (
        (
            tokens.starts_R[:, None]
            + jnp.arange(0, tokens.segments_BT.shape[1] // tokens.starts_R.size, how.block)
        ).ravel()
        for tokens in (queries, keys)
    )
    ahead = k_starts - q_starts[:, None]
    first = jnp.zeros_like(q_starts)
    if how.window:
        first = jnp.sum(ahead <= 1 - how.window - how.block, axis=1)
    return _Blocks(q_starts, k_starts, first, jnp.sum(ahead < how.block, axis=1))


def _scores(
    how: How,
    q: jax.Array,
    k: jax.Array,
    q_segments: jax.Array,
    k_segments: jax.Array,
    distance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Scores [B, K, G, Q, S] of a block of queries and one of keys; which count.

    Args:
      distance: from the first key on to the first query, in the row.
    """
    scores = jnp.einsum("BKGQH,BKSH->BKGQS", q, k, preferred_element_type=jnp.float32)
    if how.softcap:
        scores = how.softcap * jnp.tanh(scores / how.softcap)
    at = jnp.arange(how.block)
    behind = distance + at[:, None] - at
    near = behind >= 0
    if how.window:
        near &= behind < how.window
    seen = near & (q_segments[:, :, None] == k_segments[:, None, :])
    return scores, seen[:, None, None]


def _mixed(
    how: How,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Tokens,
    keys: Tokens,
    so_far: Mixed,
) -> Mixed:
    """Attention to these keys and to those before, `so_far`, in its dtypes."""
    blocks = _blocks(how, queries, keys)

    def one(i: jax.Array, so_far: Mixed) -> Mixed:
        q_i, q_segments = _block(q, i, how.block), _block(queries.segments_BT, i, how.block, 1)

        def more(j: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            mixed, top, total = state
            k_j, k_segments = _block(k, j, how.block), _block(keys.segments_BT, j, how.block, 1)
            distance = blocks.q_starts[i] - blocks.k_starts[j]
            scores, seen = _scores(how, q_i, k_j, q_segments, k_segments, distance)
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

        top = _block(so_far.log_z, i, how.block, -1)
        total = jnp.where(jnp.isneginf(top), 0.0, 1.0)
        start = (_block(so_far.out, i, how.block).astype(jnp.float32), top, total)
        mixed, top, total = jax.lax.fori_loop(blocks.first[i], blocks.last[i], more, start)
        # The largest weight is 1, if there is any.
        out = mixed / jnp.maximum(total, 1)[..., None]
        return Mixed(_put(so_far.out, i, out), _put(so_far.log_z, i, top + jnp.log(total), axis=-1))

    return jax.lax.fori_loop(0, blocks.first.size, one, so_far)


def _gradients(
    how: How,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    queries: Tokens,
    keys: Tokens,
    log_z: jax.Array,
    slope: jax.Array,
    along: jax.Array,
    so_far: Gradients,
) -> Gradients:
    """What these queries and keys add to the gradients `so_far`, in their dtypes."""
    blocks = _blocks(how, queries, keys)

    def one(i: jax.Array, so_far: Gradients) -> Gradients:
        q_i, slope_i = _block(q, i, how.block), _block(slope, i, how.block)
        q_segments = _block(queries.segments_BT, i, how.block, 1)
        log_z_i, along_i = (_block(x, i, how.block, -1)[..., None] for x in (log_z, along))

        def more(j: jax.Array, state: Gradients) -> Gradients:
            k_j, v_j = _block(k, j, how.block), _block(v, j, how.block)
            k_segments = _block(keys.segments_BT, j, how.block, 1)
            distance = blocks.q_starts[i] - blocks.k_starts[j]
            scores, seen = _scores(how, q_i, k_j, q_segments, k_segments, distance)
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
                return _put(total, j, _block(total, j, how.block) + more)

            grad_v = add(state.v, "BKGQS,BKGQH->BKSH", weights, slope_i)
            grad_k = add(state.k, "BKGQS,BKGQH->BKSH", of_scores, q_i)
            grad_q = state.q + jnp.einsum(
                "BKGQS,BKSH->BKGQH", of_scores, k_j, preferred_element_type=jnp.float32
            )
            return Gradients(grad_q, grad_k, grad_v)

        start = so_far._replace(q=_block(so_far.q, i, how.block).astype(jnp.float32))
        found = jax.lax.fori_loop(blocks.first[i], blocks.last[i], more, start)
        return found._replace(q=_put(so_far.q, i, found.q))

    with jax.default_matmul_precision(how.precision):  # this is traced elsewhere
        return jax.lax.fori_loop(0, blocks.first.size, one, so_far)
