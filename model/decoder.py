"""The decoder: embedding, a scan over stacked blocks, output projection."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from model import cache as caches
from model import remat
from model.attention import Attention, times
from model.cache import Cache, KeyValues, Past
from model.config import ModelConfig
from model.latent import LatentAttention
from model.layers import (
    ON_ONE,
    Loop,
    Means,
    Norm,
    matmul_precision,
    rotary_angles,
    weight,
)
from model.mlp import Mlp
from model.moe import Moe, Routing

_WHOLE = ("batch", "length", "act_embed")
_BETWEEN = ("batch", "act_length", "act_embed")
"""The residual stream, where nothing looks along the length: it may be split further."""


class Features(NamedTuple):
    """What the blocks make of tokens.

    Attributes:
      x_BTD: the normalised output of the last block, in the config's dtype.
      cache: with these tokens in it; None without one.
      routing: what the routers did, stacked [L, ...] over the layers that have one; or None.
    """

    x_BTD: jax.Array
    cache: Cache | None
    routing: Routing | None


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); the MLP may be a mixture of experts.

    Or x + norm(attention(x)), or x + norm(attention(norm(x))): see ModelConfig.norms.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means, experts: bool):
        self.constrain, self.name = means.constrain, means.name
        before, after = config.norms != "post", config.norms != "pre"

        def norm(there: bool) -> Norm | None:
            return Norm(config, config.embed_dim) if there else None

        self.attention_norm, self.attention_post_norm = norm(before), norm(after)
        latent = config.latent.kv_rank > 0
        self.attention = (LatentAttention if latent else Attention)(config, rngs, means)
        self.mlp_norm, self.mlp_post_norm = norm(before), norm(after)
        self.mlp = Moe(config, rngs, means) if experts else Mlp(config, rngs, means, config.mlp_dim)

    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array,
        angles: jax.Array | None,
        local: jax.Array | None,
        past: Past | None,
        start: jax.Array | int,
    ) -> tuple[jax.Array, tuple[Past | None, Routing | None]]:
        x_BTD = self.name(x_BTD, "block")
        normed_BTD = self.constrain(_normed(self.attention_norm, x_BTD), _WHOLE)
        mixed_BTD, past = self.attention(normed_BTD, segments_BT, angles, local, past, start)
        x_BTD = self._added(x_BTD, mixed_BTD, self.attention_post_norm)
        normed_BTD = self.constrain(_normed(self.mlp_norm, x_BTD), _WHOLE)
        routing = None
        if isinstance(self.mlp, Moe):
            y_BTD, routing = self.mlp(normed_BTD, segments_BT)
        else:
            y_BTD = self.mlp(normed_BTD)
        return self._added(x_BTD, y_BTD, self.mlp_post_norm), (past, routing)

    def _added(self, x_BTD: jax.Array, y_BTD: jax.Array, norm: Norm | None) -> jax.Array:
        """The residual stream with what a sub-layer gives."""
        if norm is not None:
            y_BTD = norm(self.constrain(y_BTD, _BETWEEN))
        return self.constrain(x_BTD + y_BTD, _BETWEEN)


def _normed(norm: Norm | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)


class Decoder(nnx.Module):
    """A decoder-only transformer (see ModelConfig for its options).

    Args:
      config: its shape.
      rngs: for the initial parameters.
      means: how it computes where it runs.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means = ON_ONE) -> None:
        self.config, self.means, self.constrain = config, means, means.constrain
        vocab, embed = config.padded_vocab_size, config.embed_dim
        self.embedding = weight(rngs, (vocab, embed), ("vocab", "embed"), config.init_std)
        if config.positions == "learned":
            shape = (config.max_length, embed)
            self.position_embedding = weight(rngs, shape, ("position", "embed"), config.init_std)

        def stack(layers: int, experts: bool) -> Any:
            @nnx.split_rngs(splits=layers)
            def stacked(rngs: nnx.Rngs) -> Block:
                if means.order is not None:  # a layer is the same wherever it lies
                    order = jnp.asarray(means.order)
                    nnx.update(rngs, jax.tree.map(lambda x: x[order], nnx.state(rngs)))
                return nnx.vmap(lambda rngs: Block(config, rngs, means, experts))(rngs)

            return stacked(rngs)

        *before, layers = config.stacks
        if before:
            self.dense_blocks = stack(before[0], experts=False)
        self.blocks = stack(layers, experts=config.moe.num_experts > 0)
        self.final_norm = Norm(config, embed)
        if not config.tie_embeddings:
            self.unembedding = weight(rngs, (vocab, embed), ("vocab", "embed"), config.init_std)

    def features(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array,
        cache: Cache | None = None,
        start: jax.Array | int = 0,
    ) -> Features:
        """All but the output projection.

        Args:
          tokens_BT: int32 token ids.
          positions_BT: int32, from 0 at the start of each document.
          segments_BT: int32; tokens see only their own segment. 0 is padding.
          cache: from `empty_cache`, to decode with. What was fed before keeps its segments.
          start: index in the row of the first of these tokens, when there is a cache.
        """
        config = self.config
        dtype = jnp.dtype(config.dtype)
        learned = config.positions == "learned"
        looked_up = jnp.float32 if learned else dtype
        x_BTD = self.means.look_up(self.embedding[...], tokens_BT, looked_up)
        x_BTD = times(x_BTD, config.embed_scale)
        if learned:
            x_BTD = x_BTD + jnp.take(self.position_embedding[...], positions_BT, axis=0)
        x_BTD = self.constrain(x_BTD.astype(dtype), _BETWEEN)

        if cache is not None:
            slots_BS = jax.lax.dynamic_update_slice(cache.segments_BS, segments_BT, (0, start))
            cache = cache._replace(segments_BS=slots_BS)
        grown, routing, locals_L = [], None, self._locals_L
        rows = segments_BT, positions_BT
        for index, (blocks, layers) in enumerate(self._stacks):
            definition, stacked = nnx.split(blocks)
            layer = functools.partial(self._layer, definition, start)
            here = None if locals_L is None else locals_L[:layers]
            locals_L = None if locals_L is None else locals_L[layers:]
            with matmul_precision(config):
                if cache is not None:
                    kept, slots_BS = cache.layers[index], cache.segments_BS
                    x_BTD, kept = caches.run(layer, x_BTD, stacked, here, kept, slots_BS, rows)
                    grown.append(kept)
                    continue
                loop = Loop(min(config.scan_unroll, layers), remat.policy(config))
                x_BTD, extras = self.means.run_layers(
                    layer, x_BTD, (stacked, None, here), rows, loop
                )
            _, routing = extras
        x_BTD = self.final_norm(x_BTD)
        if cache is not None:
            cache = self._placed(cache._replace(layers=tuple(grown)))
        return Features(x_BTD, cache, routing)

    @property
    def _stacks(self) -> tuple[tuple[Block, int], ...]:
        """The stacks of layers of a kind in the order of depth, and how many layers each has."""
        blocks = (self.dense_blocks, self.blocks) if len(self.config.stacks) > 1 else (self.blocks,)
        return tuple(zip(blocks, self.config.stacks, strict=True))

    @property
    def _locals_L(self) -> jax.Array | None:
        """Of each layer where it lies whether it is local, if some are not."""
        if (by_depth := self.config.local_layers) is None:
            return None
        last = self.config.stacks[-1]
        before, of_last = by_depth[:-last], by_depth[-last:]
        order = range(last) if self.means.order is None else self.means.order
        return jnp.array([*before, *(of_last[i] for i in order)])

    def _layer(
        self,
        definition: Any,
        start: jax.Array | int,
        x_BTD: jax.Array,
        mine: tuple[Any, Past | None, jax.Array | None],
        rows: tuple[jax.Array, jax.Array],
    ) -> tuple[jax.Array, tuple[Past | None, Routing | None]]:
        state, past, local = mine
        segments_BT, positions_BT = rows
        angles = None
        if self.config.positions == "rope":
            angles = rotary_angles(self.config, positions_BT, local)
        return nnx.merge(definition, state)(x_BTD, segments_BT, angles, local, past, start)

    @property
    def table(self) -> nnx.Param:
        """The output projection [V, D], float32."""
        return self.embedding if self.config.tie_embeddings else self.unembedding

    def unembed(self, x_BTD: jax.Array) -> jax.Array:
        """Features [..., D] -> logits [..., V], float32; ids past the vocabulary get -inf."""
        return unembed(self.config, self.table[...], x_BTD)

    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, segments_BT: jax.Array
    ) -> jax.Array:
        """Logits [B, T, V], float32, of the token after each; see `features` for the arguments."""
        return self.unembed(self.features(tokens_BT, positions_BT, segments_BT).x_BTD)

    def empty_cache(self, batch: int, length: int, dtype: Any = None, apart: bool = False) -> Cache:
        """A cache for `batch` documents of up to `length` tokens: zeros.

        Args:
          batch, length: its size.
          dtype: of keys and values; None is the model's.
          apart: each layer has an array of its own, as its parameters then must have
            (model/cache.py).
        """
        config = self.config
        dtype = jnp.dtype(dtype or config.dtype)

        def zeros(layers: int, one: tuple[int, int]) -> Any:
            shape = (batch, length, *one)
            if apart:
                return tuple(jnp.zeros(shape, dtype) for _ in range(layers))
            return jnp.zeros((layers, *shape), dtype)

        stacks = (KeyValues(*(zeros(n, one) for one in config.cached)) for n in config.stacks)
        return self._placed(Cache(tuple(stacks), jnp.zeros((batch, length), jnp.int32)))

    def _placed(self, cache: Cache) -> Cache:
        axes = ("layers", "batch", "length", "kv_heads", "head_dim")
        layers = jax.tree.map(lambda part: self.constrain(part, axes[-part.ndim :]), cache.layers)
        return Cache(layers, self.constrain(cache.segments_BS, ("batch", "length")))


def unembed(config: ModelConfig, table_VD: jax.Array, x_BTD: jax.Array) -> jax.Array:
    """Features [..., D] -> logits [..., V], float32; ids past the vocabulary get -inf."""
    table_VD = table_VD.astype(x_BTD.dtype)
    with matmul_precision(config):
        logits = jnp.einsum("...D,VD->...V", x_BTD, table_VD, preferred_element_type=jnp.float32)
    if config.logit_softcap:
        logits = config.logit_softcap * jnp.tanh(logits / config.logit_softcap)
    if config.padded_vocab_size > config.vocab_size:
        real = jnp.arange(config.padded_vocab_size) < config.vocab_size
        logits = jnp.where(real, logits, -jnp.inf)
    return logits
