"""Attention of rows that lie along the mesh axis `context`, in the order of sharding/order.py.

In a ring, keys and values travel from device to device while each computes with those it has: no
device ever holds more than two devices' share of them (Liu et al. 2023). Gathered, every device
has all keys and values of a layer while it computes attention of its own queries, which any kernel
for whole keys can do (Grattafiori et al. 2024, Llama 3).

Both are called on a device, inside `shard_map`.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.kernels.parts import Parts, Runs, Tokens, scaled
from sharding import collectives
from sharding.collectives import Axes
from sharding.order import natural, starts


def gathered(
    attend_part: Callable[..., jax.Array],
    axes: Axes,
    devices: int,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
) -> jax.Array:
    """Attention of this device's queries to all keys of their rows.

    Args:
      attend_part: of a file in model/kernels, window and softcap given.
      axes, devices: the mesh axes that rows lie along, and how many devices those are.
      q_BTNH, k_BTKH, v_BTKH, segments_BT: this device's.

    Returns:
      [B, T, N, H] in v's dtype.
    """

    def whole(x: jax.Array) -> jax.Array:
        return natural(collectives.gathered(x, axes, 1), devices)

    # Whatever the layer's remat: what is gathered is not kept until the backward pass.
    @functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names("attention")
    )
    def attend(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return attend_part(
            q,
            whole(k),
            whole(v),
            segments,
            whole(segments),
            starts=starts(q.shape[1] * devices, devices),
            part=collectives.index(axes),
        )

    return attend(q_BTNH, k_BTKH, v_BTKH, segments_BT)


def ring(
    parts: Callable[[int], Parts],
    axes: Axes,
    devices: int,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segments_BT: jax.Array,
) -> jax.Array:
    """Attention of this device's queries to all keys of their rows, which pass by.

    Args:
      parts: of a file in model/kernels, window and softcap given.
      axes, devices, q_BTNH, k_BTKH, v_BTKH, segments_BT: as of `gathered`.

    Returns:
      [B, T, N, H] in v's dtype.
    """
    chunk, kv_heads = q_BTNH.shape[1] // 2, k_BTKH.shape[2]
    kernel = parts(chunk)
    runs = Runs(2, chunk, kernel.padded(chunk))
    q = runs.headed(scaled(q_BTNH), kv_heads)
    k, v = (runs.headed(x, kv_heads)[:, :, 0] for x in (k_BTKH, v_BTKH))
    how = _Ring(kernel, axes, devices, chunk)
    return runs.rows(_attend(how, q, k, v, runs.segments(segments_BT)))


class _Ring(NamedTuple):
    """Attributes:
    parts: what attention to a part of the keys is computed with.
    axes, devices: the mesh axes that it goes along, and how many devices those are.
    chunk: tokens of a chunk, without padding.
    """

    parts: Parts
    axes: Axes
    devices: int
    chunk: int


class _Held(NamedTuple):
    """Keys and values of the tokens of some device, and their segments."""

    k: jax.Array
    v: jax.Array
    segments: jax.Array


class _Pair(NamedTuple):
    """A chunk of queries, and one of keys that are all before it.

    Attributes:
      q, k: which of the two chunks of the device that holds them.
      queries, keys: their tokens.
    """

    q: jax.Array | int
    k: jax.Array | int
    queries: Tokens
    keys: Tokens


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: _Ring, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """Queries [B, K, G, T, H], scaled; keys and values [B, K, T, H]; both chunks padded."""
    return _forward(how, q, k, v, segments)[0]


def _forward(
    how: _Ring, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    held = collectives.passed_on(_Held(k, v, segments), how.axes)
    mine = _mine(how, segments)
    out, log_z = how.parts.forward(q, k, v, mine, mine, True)

    def visit(
        step: jax.Array | int, held: _Held, out: jax.Array, log_z: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        for pair in _pairs(how, step, segments, held.segments):
            k, v = _half(held.k, pair.k), _half(held.v, pair.k)
            more, log_more = how.parts.forward(
                _half(q, pair.q), k, v, pair.queries, pair.keys, False
            )
            so_far, log_so_far = _half(out, pair.q), _half(log_z, pair.q, -1)
            log_both = jnp.logaddexp(log_so_far, log_more)
            both = so_far * jnp.exp(log_so_far - log_both)[..., None]
            both += more * jnp.exp(log_more - log_both)[..., None]
            out, log_z = _put(out, both, pair.q), _put(log_z, log_both, pair.q, -1)
        return out, log_z

    def turn(step: jax.Array, state: tuple[_Held, jax.Array, jax.Array]) -> Any:
        held = state[0]
        return collectives.passed_on(held, how.axes), *visit(step, *state)

    state = (held, out.astype(jnp.float32), log_z)
    state = jax.lax.fori_loop(1, how.devices - 1, turn, state)
    out, log_z = visit(how.devices - 1, *state)
    # Both are kept where the output of attention is: neither is computed again for the other.
    out, log_z = (checkpoint_name(x, "attention") for x in (out.astype(v.dtype), log_z))
    return out, (q, k, v, segments, out, log_z)


def _backward(
    how: _Ring, kept: tuple[jax.Array, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, segments, out, log_z = kept
    held = collectives.passed_on(_Held(k, v, segments), how.axes)
    mine = _mine(how, segments)
    grads = how.parts.backward(q, k, v, mine, mine, True, out, log_z, slope)

    def visit(step: jax.Array | int, held: _Held, *grads: jax.Array) -> tuple[jax.Array, ...]:
        # They travel with keys and values, a step behind: what is added to them on this device is
        # computed meanwhile.
        grad_q, (grad_k, grad_v) = grads[0], collectives.passed_on(grads[1:], how.axes)
        for pair in _pairs(how, step, segments, held.segments):
            more_q, more_k, more_v = how.parts.backward(
                _half(q, pair.q),
                _half(held.k, pair.k),
                _half(held.v, pair.k),
                pair.queries,
                pair.keys,
                False,
                _half(out, pair.q),
                _half(log_z, pair.q, -1),
                _half(slope, pair.q),
            )
            grad_q = _put(grad_q, _half(grad_q, pair.q) + more_q, pair.q)
            grad_k = _put(grad_k, _half(grad_k, pair.k) + more_k, pair.k)
            grad_v = _put(grad_v, _half(grad_v, pair.k) + more_v, pair.k)
        return grad_q, grad_k, grad_v

    def turn(step: jax.Array, state: tuple[Any, ...]) -> Any:
        return collectives.passed_on(state[0], how.axes), *visit(step, *state)

    state = (held, *(x.astype(jnp.float32) for x in grads))
    state = jax.lax.fori_loop(1, how.devices - 1, turn, state)
    grad_q, *of_last = visit(how.devices - 1, *state)
    grad_k, grad_v = collectives.passed_on(of_last, how.axes)  # home
    return grad_q.astype(q.dtype), grad_k.astype(k.dtype), grad_v.astype(v.dtype), None


_attend.defvjp(_forward, _backward)


def _mine(how: _Ring, segments: jax.Array) -> Tokens:
    device = collectives.index(how.axes)
    return Tokens(segments, jnp.stack([_start(how, device, 0), _start(how, device, 1)]))


def _start(how: _Ring, device: jax.Array, half: jax.Array | int) -> jax.Array:
    """Where a chunk of a device starts in the row."""
    return how.chunk * jnp.where(half == 0, device, 2 * how.devices - 1 - device)


def _pairs(how: _Ring, step: jax.Array | int, mine: jax.Array, held: jax.Array) -> Iterator[_Pair]:
    """What there is to compute with the keys of the device that is `step` before this one.

    Its first chunk is before the second of this device. Of the others, which are two first chunks
    and two second ones, its first is before ours or its second is: on every device two of four.
    Choosing chunks, and not whether to compute, leaves one program without branches.

    Args:
      how, step: see above.
      mine, held: the segments here, and those of that device.
    """
    device = collectives.index(how.axes)
    other = (device - step) % how.devices
    later = (other > device).astype(jnp.int32)
    for q, k in ((1, 0), (later, later)):
        yield _Pair(
            q,
            k,
            Tokens(_half(mine, q, 1), _start(how, device, q)[None]),
            Tokens(_half(held, k, 1), _start(how, other, k)[None]),
        )


def _half(x: jax.Array, half: jax.Array | int, axis: int = -2) -> jax.Array:
    size = x.shape[axis] // 2
    return jax.lax.dynamic_slice_in_dim(x, half * size, size, axis)


def _put(x: jax.Array, part: jax.Array, half: jax.Array | int, axis: int = -2) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, part, half * part.shape[axis], axis)
