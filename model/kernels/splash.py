"""Attention by JAX's Pallas kernel for TPUs, which skips what the mask leaves out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash

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
    batch, length, heads, size = q_BTNH.shape
    kv_heads = k_BTKH.shape[2]
    padding = -length % _BLOCKS[-1]

    def headed(x_BTNH: jax.Array) -> jax.Array:
        """[B, T, K x G, H] -> [B, K, G, T padded, H]."""
        x = jnp.pad(x_BTNH, ((0, 0), (0, padding), (0, 0), (0, 0)))
        return x.reshape(batch, length + padding, kv_heads, -1, size).transpose(0, 2, 3, 1, 4)

    q = headed((q_BTNH.astype(jnp.float32) * size**-0.5).astype(q_BTNH.dtype))
    k, v = headed(k_BTKH)[:, :, 0], headed(v_BTKH)[:, :, 0]
    # Padding is a document of its own.
    segments = jnp.pad(segments_BT, ((0, 0), (0, padding)), constant_values=-1)
    sinks = None if sinks_N is None else sinks_N.astype(jnp.float32).reshape(kv_heads, -1)
    kernel = _kernel(length + padding, heads // kv_heads, window, softcap, interpret)

    def row(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        ids = splash.SegmentIds(q=segments, kv=segments)
        per_head = jax.vmap(
            lambda q, k, v, sinks: kernel(q, k, v, ids, sinks),
            in_axes=(0, 0, 0, None if sinks is None else 0),
        )
        return per_head(q, k, v, sinks)

    out = jax.vmap(row)(q, k, v, segments)  # [B, K, G, T, H]
    return out.transpose(0, 3, 1, 2, 4)[:, :length].reshape(q_BTNH.shape).astype(v_BTKH.dtype)


@functools.lru_cache(maxsize=8)
def _kernel(length: int, groups: int, window: int, softcap: float, interpret: bool) -> Any:
    """The kernel of the query heads of one key-value head."""
    mask: Any = splash.CausalMask((length, length))
    if window:
        mask = splash.LocalMask((length, length), (window - 1, 0), 0)
    block = next(block for block in _BLOCKS if length % block == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    with jax.ensure_compile_time_eval():  # what it holds is kept from trace to trace
        return splash.make_splash_mqa(
            splash.MultiHeadMask([mask] * groups),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=softcap or None,
            residual_checkpoint_name="attention",  # kept where the output of attention is
            interpret=interpret,
        )
