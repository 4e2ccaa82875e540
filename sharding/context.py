"""Attention of rows that lie along the mesh axis `context`, in the order of sharding/order.py.

In a ring, keys and values travel from device to device while each computes with those it has: no
device ever holds more than two devices' share of them (Liu et al. 2023). Gathered, every device
has all keys and values of a layer while it computes attention of its own queries, which any kernel
for whole keys can do (Grattafiori et al. 2024, Llama 3).

Both are called on a device, inside `shard_map`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.kernels.parts import Gradients, Mixed, Parts, Runs, Starts, Tokens, along, scaled
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
    sinks_N: jax.Array | None = None,
) -> jax.Array:
    """Attention of this device's queries to all keys of their rows.

    Args:
      attend_part: of a file in model/kernels, window and softcap given.
      axes, devices: the mesh axes that rows lie along, and how many devices those are.
      q_BTNH, k_BTKH, v_BTKH, segments_BT: this device's.
      sinks_N: as of model.attention.attend.

    Returns:
      [B, T, N, H] in v's dtype.
    """

    def whole(x: jax.Array) -> jax.Array:
        return natural(collectives.gathered(x, axes, 1), devices)

    # Whatever the layer's remat: what is gathered is not kept until the backward pass.
    @functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names("attention")
    )
    def attend(
        q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, **sinks: jax.Array
    ) -> jax.Array:
        return attend_part(
            q,
            whole(k),
            whole(v),
            segments,
            whole(segments),
            starts=starts(q.shape[1] * devices, devices),
            part=collectives.index(axes),
            **sinks,
        )

    sinks = {} if sinks_N is None else {"sinks_N": sinks_N}
    return attend(q_BTNH, k_BTKH, v_BTKH, segments_BT, **sinks)


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
    how = _Ring(kernel, axes, devices, starts(q_BTNH.shape[1] * devices, devices))
    return runs.rows(_attend(how, q, k, v, runs.segments(segments_BT)))


class _Ring(NamedTuple):
    """Attributes:
    parts: what attention to a part of the keys is computed with.
    axes, devices: the mesh axes that it goes along, and how many devices those are.
    starts: of the chunks of each device, see sharding/order.py.
    """

    parts: Parts
    axes: Axes
    devices: int
    starts: Starts


class _Held(NamedTuple):
    """Keys and values of the tokens of some device, and their segments."""

    k: jax.Array
    v: jax.Array
    segments: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: _Ring, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """Queries [B, K, G, T, H], scaled; keys and values [B, K, T, H]; both chunks padded."""
    return _forward(how, q, k, v, segments)[0]


def _forward(
    how: _Ring, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array
) -> tuple[jax.Array, tuple[Any, ...]]:
    mine = _tokens(how, segments, 0)

    def visit(step: jax.Array | int, own: bool, held: _Held, so_far: Mixed) -> Mixed:
        keys = _tokens(how, held.segments, step)
        return how.parts.forward(q, held.k, held.v, mine, keys, own, so_far)

    out = (*q.shape[:-1], v.shape[-1])
    nothing = Mixed(jnp.zeros(out, jnp.float32), jnp.full(q.shape[:-1], -jnp.inf))
    mixed = _round(how, visit, _Held(k, v, segments), nothing)
    mixed = mixed._replace(out=mixed.out.astype(v.dtype))
    # Both are kept where the output of attention is: neither is computed again for the other.
    mixed = Mixed(*(checkpoint_name(x, "attention") for x in mixed))
    return mixed.out, (q, k, v, segments, mixed)


def _backward(
    how: _Ring, kept: tuple[Any, ...], slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, segments, mixed = kept
    mine, common = _tokens(how, segments, 0), along(mixed.out, slope)

    def passed_on(grads: Gradients) -> Gradients:
        return Gradients(grads.q, *collectives.passed_on((grads.k, grads.v), how.axes))

    def visit(step: jax.Array | int, own: bool, held: _Held, so_far: Gradients) -> Gradients:
        # Those in keys and values travel with them, a step behind: they arrive while what is added
        # to them is computed.
        so_far = so_far if own else passed_on(so_far)
        keys = _tokens(how, held.segments, step)
        return how.parts.backward(q, held.k, held.v, mine, keys, own, mixed, slope, common, so_far)

    zeros = Gradients(*(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v)))
    grads = passed_on(_round(how, visit, _Held(k, v, segments), zeros))  # the last step brings home
    return grads.q.astype(q.dtype), grads.k.astype(k.dtype), grads.v.astype(v.dtype), None


_attend.defvjp(_forward, _backward)


def _round(how: _Ring, visit: Callable[..., Any], held: _Held, so_far: Any) -> Any:
    """Goes through the keys of all devices: visit(step, own, held, so_far) -> so_far.

    Those of the device that is `step` before this one are here after so many steps. While some are
    visited, the next are on their way.
    """
    ahead = collectives.passed_on(held, how.axes)
    so_far = visit(0, True, held, so_far)

    def turn(step: jax.Array, state: tuple[_Held, Any]) -> tuple[_Held, Any]:
        held, so_far = state
        return collectives.passed_on(held, how.axes), visit(step, False, held, so_far)

    last, so_far = jax.lax.fori_loop(1, how.devices - 1, turn, (ahead, so_far))
    return visit(how.devices - 1, False, last, so_far)


def _tokens(how: _Ring, segments: jax.Array, step: jax.Array | int) -> Tokens:
    """Those of the device that is `step` before this one."""
    device = (collectives.index(how.axes) - step) % how.devices
    return Tokens(segments, jnp.asarray(how.starts, jnp.int32)[device])
