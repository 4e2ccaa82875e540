"""What is kept of the tokens seen so far, to decode with."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class KeyValues(NamedTuple):
    """Keys and values of the tokens seen so far: those of a stack of layers, [L, B, S, K, H], or a
    tuple of [B, S, K, H] where layers lie apart."""

    k: Any
    v: Any


class Cache(NamedTuple):
    """What `Decoder.empty_cache` makes and `Decoder.features` fills. Index s of a row is a slot.

    Attributes:
      layers: of each stack of layers.
      segments_BS: int32, of the token in each slot; 0 is padding, and a slot that is still empty.
    """

    layers: tuple[KeyValues, ...]
    segments_BS: jax.Array


class Past(NamedTuple):
    """What one layer has to do with.

    Attributes:
      kept: of its whole stack, of which it is number `layer`; or, if that is None, its own.
      segments_BS: see Cache; those of the tokens that are being fed are in it.
      layer: see kept.
    """

    kept: KeyValues
    segments_BS: jax.Array
    layer: jax.Array | None

    def written(self, k_BTKH: jax.Array, v_BTKH: jax.Array, start: jax.Array | int) -> "Past":
        """With the keys and values of new tokens, which lie from slot `start` on."""

        def write(kept: jax.Array, new: jax.Array) -> jax.Array:
            new, at = new.astype(kept.dtype), (0, start, 0, 0)
            if self.layer is None:
                return jax.lax.dynamic_update_slice(kept, new, at)
            return jax.lax.dynamic_update_slice(kept, new[None], (self.layer, *at))

        kept = KeyValues(write(self.kept.k, k_BTKH), write(self.kept.v, v_BTKH))
        return self._replace(kept=kept)

    def read(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """Keys and values of all slots, [B, S, K, H] each, in a dtype."""

        def mine(kept: jax.Array) -> jax.Array:
            if self.layer is not None:
                kept = jax.lax.dynamic_index_in_dim(kept, self.layer, keepdims=False)
            return kept.astype(dtype)

        return mine(self.kept.k), mine(self.kept.v)


DecodingLayer = Callable[[jax.Array, Any, Any], tuple[jax.Array, tuple[Any, Any]]]
"""As `Layer` of model/layers.py; its part of what is stacked is (parameters, Past, local), and
it returns a Past first."""


def run(
    layer: DecodingLayer,
    x_BTD: jax.Array,
    stacked: Any,
    local_L: jax.Array | None,
    kept: KeyValues,
    segments_BS: jax.Array,
    rows: Any,
) -> tuple[jax.Array, KeyValues]:
    """Calls the layers of a stack one after the other, each with what it keeps.

    What they keep is changed in place: in a loop it is carried as a whole, since what goes in
    layer by layer and comes out layer by layer is copied. Layers that lie apart need no loop, and
    their parameters need not be cut out of their stack before they are multiplied.
    """
    if isinstance(kept.k, tuple):
        ks, vs = [], []
        for index, pair in enumerate(zip(*kept, strict=True)):
            one = jax.tree.map(
                lambda leaf, index=index: leaf[index],
                stacked,
                is_leaf=lambda leaf: isinstance(leaf, tuple),
            )
            local = None if local_L is None else local_L[index]
            past = Past(KeyValues(*pair), segments_BS, None)
            x_BTD, (past, _) = layer(x_BTD, (one, past, local), rows)
            ks.append(past.kept.k)
            vs.append(past.kept.v)
        return x_BTD, KeyValues(tuple(ks), tuple(vs))

    def one_more(
        carried: tuple[jax.Array, KeyValues], mine: Any
    ) -> tuple[tuple[jax.Array, KeyValues], None]:
        x_BTD, kept = carried
        index, one, local = mine
        x_BTD, (past, _) = layer(x_BTD, (one, Past(kept, segments_BS, index), local), rows)
        return (x_BTD, past.kept), None

    count = jnp.arange(kept.k.shape[0])
    (x_BTD, kept), _ = jax.lax.scan(one_more, (x_BTD, kept), (count, stacked, local_L))
    return x_BTD, kept
