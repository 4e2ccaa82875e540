"""The kernel of splash.py for keys that come in parts.

JAX has no public way to its gradients where other keys have a share in the softmax: what is private
is in this file.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as inner

from model.kernels.parts import Gradients, Mixed, Tokens
from model.kernels.splash import each, padded, sizes


class How(NamedTuple):
    """`Parts` (see model/kernels/parts.py) without windows, of queries and keys of two runs each.

    What the kernel leaves out, it must know when it is compiled. Of its own keys a query sees those
    up to itself. Of the four pairs of a run of queries and one of other keys, two are computed, and
    whole; which two, is chosen as the program runs (see `_pairs`).

    Attributes:
      softcap: as of model.attention.attend.
      interpret: run without a TPU, slowly.
    """

    softcap: float
    interpret: bool

    def padded(self, length: int) -> int:
        return padded(length)

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
        if own:
            return _both(so_far, self._attend(True, q, k, v, queries.segments_BT, keys.segments_BT))
        for q_run, k_run in _pairs(queries, keys):
            here = Mixed(_run(so_far.out, q_run), _run(so_far.log_z, q_run, -1))
            more = self._attend(
                False,
                _run(q, q_run),
                _run(k, k_run),
                _run(v, k_run),
                _run(queries.segments_BT, q_run, 1),
                _run(keys.segments_BT, k_run, 1),
            )
            here = _both(here, more)
            so_far = Mixed(
                _put(so_far.out, q_run, here.out), _put(so_far.log_z, q_run, here.log_z, -1)
            )
        return so_far

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
        del along  # the kernel's own code finds it
        if own:
            ids = queries.segments_BT, keys.segments_BT
            more = self._gradients(True, q, k, v, *ids, mixed, slope)
            return Gradients(*(a + b for a, b in zip(so_far, more, strict=True)))
        for q_run, k_run in _pairs(queries, keys):
            more = self._gradients(
                False,
                _run(q, q_run),
                _run(k, k_run),
                _run(v, k_run),
                _run(queries.segments_BT, q_run, 1),
                _run(keys.segments_BT, k_run, 1),
                Mixed(_run(mixed.out, q_run), _run(mixed.log_z, q_run, -1)),
                _run(slope, q_run),
            )
            so_far = Gradients(
                *(
                    _put(total, run, _run(total, run) + part)
                    for total, part, run in zip(so_far, more, (q_run, k_run, k_run), strict=True)
                )
            )
        return so_far

    def _attend(
        self,
        own: bool,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        q_segments: jax.Array,
        k_segments: jax.Array,
    ) -> Mixed:
        kernel = self._kernel(q, own)

        def one(q: jax.Array, k: jax.Array, v: jax.Array, ids: Any) -> Mixed:
            out, (log_z,) = kernel(q, k, v, ids)
            return Mixed(out, log_z)

        found: Mixed = each(one, q, k, v, splash.SegmentIds(q=q_segments, kv=k_segments))
        return found

    def _gradients(
        self,
        own: bool,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        q_segments: jax.Array,
        k_segments: jax.Array,
        mixed: Mixed,
        slope: jax.Array,
    ) -> Gradients:
        kernel = self._kernel(q, own)
        how = kernel.kwargs

        def one(q: Any, k: Any, v: Any, ids: Any, mixed: Mixed, slope: Any) -> Gradients:
            kept = (q, k, v, ids, None, *mixed, kernel.dq_mask_info, kernel.dkv_mask_info)
            found = inner._splash_attention_bwd(
                False,  # what is asked for is not differentiated again
                how["mask_value"],
                how["is_mqa"],
                how["block_sizes"],
                None,  # name of what is kept
                how["mask_function"],
                how["attn_logits_soft_cap"],
                how["interpret"],
                kept,
                slope,
            )
            return Gradients(*found[3:6])

        ids = splash.SegmentIds(q=q_segments, kv=k_segments)
        found: Gradients = each(one, q, k, v, ids, mixed, slope)
        return found

    def _kernel(self, q: jax.Array, own: bool) -> Any:
        return _kernel(*q.shape[2:4], own, self.softcap, self.interpret)


def parts(length: int, *, softcap: float = 0.0, interpret: bool = False) -> How:
    """What a ring computes with, of runs of any length; the rest as of `splash.attend`."""
    del length
    return How(softcap, interpret)


@functools.lru_cache(maxsize=8)
def _kernel(groups: int, length: int, own: bool, softcap: float, interpret: bool) -> Any:
    """The kernel of so many queries of each of a group of heads, and of as many keys."""
    mask: Any = (splash.CausalMask if own else splash.FullMask)((length, length))
    with jax.ensure_compile_time_eval():  # what it holds is kept from trace to trace
        return splash.make_splash_mqa(
            splash.MultiHeadMask([mask] * groups),
            block_sizes=sizes(length, length),
            head_shards=1,
            q_seq_shards=1,
            save_residuals=True,
            attn_logits_soft_cap=softcap or None,
            interpret=interpret,
        )


def _pairs(queries: Tokens, keys: Tokens) -> Iterator[tuple[jax.Array | int, jax.Array | int]]:
    """Which runs of queries look at which runs of keys, of other devices (see sharding/order.py).

    A device's second chunk is after all first ones. Of the rest either its first chunk is after
    theirs, or its second is.
    """
    yield 1, 0
    later = (keys.starts_R[0] > queries.starts_R[0]).astype(jnp.int32)
    yield later, later


def _run(x: jax.Array, run: jax.Array | int, axis: int = -2) -> jax.Array:
    """One of two."""
    size = x.shape[axis] // 2
    return jax.lax.dynamic_slice_in_dim(x, run * size, size, axis)


def _put(x: jax.Array, run: jax.Array | int, part: jax.Array, axis: int = -2) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, part, run * part.shape[axis], axis)


def _both(a: Mixed, b: Mixed) -> Mixed:
    """Attention to all keys, of attention to some and to the others; a sees some, or is zeros."""
    log_z = jnp.logaddexp(a.log_z, b.log_z)
    share_a, share_b = (jnp.exp(x.log_z - log_z)[..., None] for x in (a, b))
    return Mixed(a.out * share_a + b.out * share_b, log_z)
