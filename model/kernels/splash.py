"""Attention by JAX's Pallas kernel for TPUs, which skips what the mask leaves out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as splash

from model.kernels.parts import WHOLE, Runs, Starts, scaled

_BLOCKS = (512, 256, 128)  # queries, and keys, at a time: the largest that divides the length


def attend(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    *,
    window: int = 0,
    softcap: float = 0.0,
    sinks_N: jax.Array | None = None,
    interpret: bool = False,
) -> jax.Array:
    """What `model.attention.attend` computes, of whole rows.

    Args:
      q_BTNH, k_BTKH, v_BTKH, segments_BT, window, softcap, sinks_N: see there.
      interpret: run without a TPU, slowly.

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
        interpret=interpret,
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
    interpret: bool = False,
) -> jax.Array:
    """`attend` of some queries of rows, whose keys are whole.

    Args:
      q_BTNH, q_segments_BT: runs of tokens of each row.
      k_BSKH, v_BSKH, k_segments_BS: of all tokens, in the order of the row.
      starts, part: the queries are this part of the row.
      window, softcap, sinks_N, interpret: as of `attend`.
    """
    kv_heads, whole = k_BSKH.shape[2], k_BSKH.shape[1]
    groups, number = q_BTNH.shape[2] // kv_heads, len(starts[0])
    length = q_BTNH.shape[1] // number
    runs, row = Runs(number, length, padded(length)), Runs(1, whole, padded(whole))
    q = runs.headed(scaled(q_BTNH), kv_heads)
    k, v = (row.headed(x, kv_heads)[:, :, 0] for x in (k_BSKH, v_BSKH))
    kernel = _kernel(starts, runs.padded, row.padded, groups, window, softcap, interpret)
    if len(starts) > 1:
        kernel = _of_part(kernel, part, len(starts))
    ids = splash.SegmentIds(q=runs.segments(q_segments_BT), kv=row.segments(k_segments_BS))
    sinks = []
    if sinks_N is not None:
        sinks = [jnp.broadcast_to(sinks_N.astype(jnp.float32).reshape(kv_heads, -1), q.shape[:3])]
    return runs.rows(each(kernel, q, k, v, ids, *sinks)).astype(v_BSKH.dtype)


def each(one: Any, q: Any, k: Any, v: Any, ids: Any, *more: Any) -> Any:
    """`one`, which is for the query heads of one key-value head of one row, for all of them.

    Args:
      q, k, v, more: [B, K, ...].
      ids: [B, ...].
    """
    heads = jax.vmap(one, in_axes=(0, 0, 0, None, *(0 for _ in more)))
    return jax.vmap(heads)(q, k, v, ids, *more)


def padded(length: int) -> int:
    """The length that the kernel wants for so many tokens."""
    return length + -length % _BLOCKS[-1]


def sizes(q_length: int, k_length: int) -> Any:
    """The kernel's blocks for so many queries and keys."""
    q, k = (next(b for b in _BLOCKS if length % b == 0) for length in (q_length, k_length))
    return splash.BlockSizes(
        block_q=q,
        block_kv=k,
        block_q_dkv=q,
        block_kv_dkv=k,
        block_q_dq=q,
        block_kv_dq=k,
    )


@functools.lru_cache(maxsize=8)
def _kernel(
    starts: Starts,
    q_length: int,
    k_length: int,
    groups: int,
    window: int,
    softcap: float,
    interpret: bool,
) -> Any:
    """The kernel of the query heads of one key-value head, of all parts one after the other.

    Args:
      starts: of the runs of queries.
      q_length, k_length: of a run of queries, and of all keys, padded.
    """
    firsts = np.asarray(starts, np.int32).reshape(-1, 1)
    indices = (firsts + np.arange(q_length, dtype=np.int32)).ravel()
    mask: Any = splash.CausalMask((indices.size, k_length))
    if window:
        mask = splash.LocalMask((indices.size, k_length), (window - 1, 0), 0)
    mask.q_sequence = indices
    with jax.ensure_compile_time_eval():  # what it holds is kept from trace to trace
        return splash.make_splash_mqa(
            splash.MultiHeadMask([mask] * groups),
            block_sizes=sizes(q_length * len(starts[0]), k_length),
            head_shards=1,
            q_seq_shards=len(starts),
            attn_logits_soft_cap=softcap or None,
            residual_checkpoint_name="attention",  # kept where the output of attention is
            interpret=interpret,
        )


def _of_part(kernel: Any, part: jax.Array | int, number: int) -> Any:
    """The kernel of one part: its share of what a kernel holds of the mask.

    That is an index for each query, and numbers for its blocks: [heads, blocks of queries, ...].
    """

    def share(x: jax.Array) -> jax.Array:
        axis = min(1, x.ndim - 1)
        size = x.shape[axis] // number
        return jax.lax.dynamic_slice_in_dim(x, part * size, size, axis)

    return jax.tree.map(share, kernel)
