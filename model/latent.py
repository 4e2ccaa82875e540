"""Multi-head latent attention (DeepSeek-V2, 2024): keys and values of a few features a token.

Keys and values of all heads are products of one vector of `kv_rank` features; beside it one key of
`rope_dim` features with rotary positions serves all heads. Suffixes beside those of
model/__init__.py: R is the rank of keys and values, Q that of queries, P the features of a head
without positions, W those with them (H = P + W), U those of its values.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from model.attention import attend, sinks_of, times, window_of
from model.cache import Past
from model.config import ModelConfig
from model.layers import Means, Norm, constant, rotate, weight


class LatentAttention(nnx.Module):
    """What model.attention.Attention is to other models.

    A whole row has keys and values of every head. To decode with, only what they are made of is
    kept, [B, S, 1, R + W]: what makes keys of it is multiplied with the queries instead, and what
    makes values with what attention gives, as if all heads shared one key.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means):
        self.config, self.means = config, means
        latent, embed, std = config.latent, config.embed_dim, config.init_std
        heads, size, rank = config.num_heads, config.head_dim, latent.kv_rank
        of_heads = ("heads", "head_dim")
        if latent.query_rank:
            few = latent.query_rank
            self.query_down = weight(rngs, (embed, few), ("embed", "rank"), std)
            self.query_down_norm = Norm(config, few)
            self.query_up = weight(rngs, (few, heads, size), ("latent", *of_heads), std)
        else:
            self.query = weight(rngs, (embed, heads, size), ("embed", *of_heads), std)
        self.kv_down = weight(rngs, (embed, rank + latent.rope_dim), ("embed", "rank"), std)
        self.kv_down_norm = Norm(config, rank)
        plain = size - latent.rope_dim
        self.key_up = weight(rngs, (rank, heads, plain), ("latent", *of_heads), std)
        self.value_up = weight(rngs, (rank, heads, latent.value_dim), ("latent", *of_heads), std)
        std = std / (2 * config.num_layers) ** 0.5
        self.out = weight(rngs, (heads, latent.value_dim, embed), (*of_heads, "embed"), std)
        self.sinks = constant(0.0, (heads,), ("heads",)) if config.attention_sinks else None

    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array,
        angles: jax.Array | None,
        local: jax.Array | None = None,
        past: Past | None = None,
        start: jax.Array | int = 0,
    ) -> tuple[jax.Array, Past | None]:
        """See Attention; angles are [B, T, W / 2]."""
        assert angles is not None
        config, dtype = self.config, x_BTD.dtype
        constrain, product = self.means.constrain, self.means.product
        rank, width = config.latent.kv_rank, config.latent.rope_dim
        q_BTNH = self._queries(x_BTD)
        down_BTR = product("BTD,DR->BTR", x_BTD, self.kv_down[...].astype(dtype), "key")
        latent_BTR, turned_BT1W = down_BTR[..., :rank], down_BTR[..., None, rank:]
        latent_BTR = self.kv_down_norm(latent_BTR)
        turned_BT1W = rotate(turned_BT1W, angles)
        q_BTNP, q_BTNW = q_BTNH[..., :-width], rotate(q_BTNH[..., -width:], angles)
        q_BTNW = times(q_BTNW, config.rope_scaling.amplitude**2)

        if past is not None:
            q_BTNR = jnp.einsum("BTNP,RNP->BTNR", q_BTNP, self.key_up[...].astype(dtype))
            kept_BTR = jnp.concatenate([latent_BTR, turned_BT1W[..., 0, :]], axis=-1)
            kept_BT1R = kept_BTR[:, :, None]
            past = past.written(kept_BT1R, kept_BT1R[..., :0], start)
            k_BSKH, _ = past.read(dtype)
            q_BTNH = jnp.concatenate([q_BTNR, q_BTNW], axis=-1)
            mixed_BTNR = attend(
                self._scaled(q_BTNH),
                k_BSKH,
                k_BSKH[..., :rank],
                segments_BT,
                past.segments_BS,
                q_start=start,
                window=window_of(config, local),
                softcap=config.attention_softcap,
                sinks_N=sinks_of(self.sinks),
            )
            mixed = jnp.einsum("BTNR,RNU->BTNU", mixed_BTNR, self.value_up[...].astype(dtype))
            return self._project(mixed), past

        k_BTNP = product("BTR,RNH->BTNH", latent_BTR, self.key_up[...].astype(dtype), "key")
        v_BTNU = product("BTR,RNH->BTNH", latent_BTR, self.value_up[...].astype(dtype), "value")
        k_BTNW = jnp.broadcast_to(turned_BT1W, (*k_BTNP.shape[:-1], width))
        q_BTNH = self._scaled(jnp.concatenate([q_BTNP, q_BTNW], axis=-1))
        k_BTNH = jnp.concatenate([k_BTNP, k_BTNW], axis=-1)
        axes = ("batch", "length", "heads", "head_dim")
        q_BTNH, k_BTNH, v_BTNU = (constrain(x, axes) for x in (q_BTNH, k_BTNH, v_BTNU))
        if self.means.attend is not None:
            sinks = sinks_of(self.sinks)
            mixed = self.means.attend(q_BTNH, k_BTNH, v_BTNU, segments_BT, local, sinks)
            return self._project(mixed), None
        mixed = attend(
            q_BTNH,
            k_BTNH,
            v_BTNU,
            segments_BT,
            segments_BT,
            window=window_of(config, local),
            softcap=config.attention_softcap,
            sinks_N=sinks_of(self.sinks),
        )
        return self._project(checkpoint_name(mixed, "attention")), None

    def _queries(self, x_BTD: jax.Array) -> jax.Array:
        dtype, product = x_BTD.dtype, self.means.product
        if not self.config.latent.query_rank:
            return product("BTD,DNH->BTNH", x_BTD, self.query[...].astype(dtype), "query")
        down_BTQ = product("BTD,DQ->BTQ", x_BTD, self.query_down[...].astype(dtype), "query")
        down_BTQ = self.query_down_norm(down_BTQ)
        return product("BTQ,QNH->BTNH", down_BTQ, self.query_up[...].astype(dtype), "query")

    def _scaled(self, q: jax.Array) -> jax.Array:
        """Kernels scale by the size of what they are given."""
        return times(q, self.config.score_scale * q.shape[-1] ** 0.5)

    def _project(self, mixed: jax.Array) -> jax.Array:
        w_NUD = self.out[...].astype(mixed.dtype)
        return self.means.product("BTNH,NHD->BTD", mixed, w_NUD, "out")
