"""Attention by JAX's Pallas kernel for GPUs (Triton), with memory linear in length."""

import warnings

import jax
import jax.numpy as jnp

with warnings.catch_warnings():
    # JAX 0.12 names Tokamax as the successor, whose public function has masks of [T, S] alone: with
    # those, keeping documents apart is quadratic in length.
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.experimental.pallas.ops.gpu import attention as flash

_BLOCK = 128  # of which lengths become multiples


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
      q_BTNH, k_BTKH, v_BTKH, segments_BT: see there.
      interpret: run without a GPU, slowly.

    Returns:
      [B, T, N, H] in v's dtype. Softmax is in float32.
    """
    length, heads, size = q_BTNH.shape[1:]
    padding = -length % _BLOCK
    group = heads // k_BTKH.shape[2]

    def padded(x_BTNH: jax.Array) -> jax.Array:
        return jnp.pad(x_BTNH, ((0, 0), (0, padding), (0, 0), (0, 0)))

    # The kernel wants as many key-value heads as there are queries'.
    k_BTNH, v_BTNH = (jnp.repeat(x, group, axis=2) for x in (k_BTKH, v_BTKH))
    out = flash.mha(
        padded(q_BTNH),
        padded(k_BTNH),
        padded(v_BTNH),
        # Padding is a document of its own.
        jnp.pad(segments_BT, ((0, 0), (0, padding)), constant_values=-1),
        sm_scale=size**-0.5,
        causal=True,
        interpret=interpret,
    )
    return out[:, :length]
