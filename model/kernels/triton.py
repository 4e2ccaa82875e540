"""Attention by JAX's Pallas kernel for GPUs (Triton), with memory linear in length."""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

with warnings.catch_warnings():
    # JAX 0.12 names Tokamax as the successor, whose public function has masks of [T, S] alone: with
    # those, keeping documents apart is quadratic in length.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.experimental.pallas.ops.gpu import attention as flash

HEAD_SIZES = range(16, 129)
"""Products in bfloat16 need 16; blocks of larger heads do not fit into a GPU's shared memory."""

_BLOCK = 128  # of which lengths become multiples


class _How(NamedTuple):
    """Attributes:
    scale: of the scores.
    blocks: queries and keys at a time.
    interpret: run without a GPU.
    """

    scale: float
    blocks: Any
    interpret: bool


def attend(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
    *,
    interpret: bool = False,
) -> jax.Array:
    """What `model.attention.attend` computes, of whole rows; the kernel has no window and no cap.

    Args:
      q_BTNH, k_BTKH, v_BTKH, segments_BT: see there; H is one of HEAD_SIZES.
      interpret: run without a GPU, slowly.

    Returns:
      [B, T, N, H] in v's dtype. Softmax is in float32.
    """
    length, size = q_BTNH.shape[1], q_BTNH.shape[3]
    padding = -length % _BLOCK
    q, k, v = (jnp.pad(x, ((0, 0), (0, padding), (0, 0), (0, 0))) for x in (q_BTNH, k_BTKH, v_BTKH))
    # Padding is a document of its own.
    segments = jnp.pad(segments_BT, ((0, 0), (0, padding)), constant_values=-1)
    forward = _BLOCK if size <= 64 else 64  # for two of them to fit into 99 KB
    blocks = flash.BlockSizes(
        block_q=forward,
        block_k=forward,
        block_q_dkv=32,
        block_kv_dkv=32,
        block_q_dq=32,
        block_kv_dq=32,
    )
    return _attend(_How(size**-0.5, blocks, interpret), q, k, v, segments)[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: _How, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    return _forward(how, q, k, v, segments)[0]


def _repeated(x_BTKH: jax.Array, heads: int) -> jax.Array:
    """As many key-value heads as there are queries', which the kernel wants."""
    return jnp.repeat(x_BTKH, heads // x_BTKH.shape[2], axis=2)


def _forward(
    how: _How, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    heads = q.shape[2]
    out, log_z = flash.mha(
        q,
        _repeated(k, heads),
        _repeated(v, heads),
        segments,
        sm_scale=how.scale,
        causal=True,
        block_sizes=how.blocks,
        interpret=how.interpret,
        return_residuals=True,
    )
    # Both are kept where the output of attention is: the kernel is not run again for the second.
    out, log_z = (checkpoint_name(x, "attention") for x in (out, log_z))
    return out, (q, k, v, segments, out, log_z)


def _backward(
    how: _How, kept: tuple[jax.Array, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, segments, out, log_z = kept
    heads = q.shape[2]
    residuals = (q, _repeated(k, heads), _repeated(v, heads), segments, out, log_z)
    grad_q, *grads, _ = flash._mha_backward(
        how.scale,
        True,  # causal
        how.blocks,
        "triton",
        None,  # warps: as many as it thinks best
        2,  # stages
        None,  # grid
        how.interpret,
        False,  # debug
        False,  # residuals are not asked for
        residuals,
        slope,
    )

    def summed(x_BTNH: jax.Array, like: jax.Array) -> jax.Array:
        """Over the queries' heads of a key-value head."""
        x = x_BTNH.astype(jnp.float32).reshape(*like.shape[:3], -1, like.shape[3])
        return jnp.sum(x, axis=3).astype(like.dtype)

    return grad_q, summed(grads[0], k), summed(grads[1], v), None


_attend.defvjp(_forward, _backward)
