"""A mixture of experts: a router gives each token to a few MLPs of many.

No token is dropped: tokens are sorted by expert, and each expert multiplies as many as it has
(dropless, Gale et al. 2023). The router computes in float32, as ST-MoE (Zoph et al. 2022) found to
be needed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from model import grouped
from model.config import ModelConfig
from model.grouped import Grouped
from model.layers import Experts, ExpertWeights, Means, constant, weight
from model.mlp import ACTIVATIONS, Activate, Mlp


class Routing(NamedTuple):
    """What a layer's router did with each row, or stacked [L, ...] what those of all layers did;
    padding does not count.

    Attributes:
      chosen_BE: how many tokens chose each expert, int32.
      scores_BE: the scores of each expert, those of a token summing to 1, summed over tokens;
        float32. They alone, and z_B, have a gradient.
      z_B: the squares of log(Z), Z the softmax's normalizer of a token's logits, summed; float32.
    """

    chosen_BE: jax.Array
    scores_BE: jax.Array
    z_B: jax.Array


class Moe(nnx.Module):
    """The sum of the chosen experts' outputs, each times its weight, and of the shared ones'."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs, means: Means):
        self.config = config
        self.experts = means.experts or on_one(grouped.ragged, ACTIVATIONS[config.mlp])
        moe, embed, std = config.moe, config.embed_dim, config.init_std
        self.router = weight(rngs, (embed, moe.num_experts), ("embed", "router"), std)
        if moe.balance == "bias":
            self.balance_bias = constant(0.0, (moe.num_experts,), ("router",))
        shape = (moe.num_experts, embed, moe.expert_mlp_dim)
        axes = ("experts", "expert_embed", "mlp")
        self.up = weight(rngs, shape, axes, std)
        if config.gated:
            self.gate = weight(rngs, shape, axes, std)
        self.down = weight(rngs, shape, axes, std / (2 * config.num_layers) ** 0.5)
        if config.bias:
            self.router_bias = constant(0.0, (moe.num_experts,), ("router",))
            of_hidden = shape[::2], axes[::2]
            self.up_bias = constant(0.0, *of_hidden)
            if config.gated:
                self.gate_bias = constant(0.0, *of_hidden)
            self.down_bias = constant(0.0, shape[:2], ("experts", "norm"))
        if moe.shared_experts:
            self.shared = Mlp(config, rngs, means, moe.shared_experts * moe.expert_mlp_dim)

    def __call__(self, x_BTD: jax.Array, segments_BT: jax.Array) -> tuple[jax.Array, Routing]:
        """Args:
          x_BTD: input, already normalised.
          segments_BT: int32; 0 is padding, of which no expert computes anything.

        Returns:
          [B, T, D] in x's dtype, and what the router did.
        """
        ids_BTA, weights_BTA, routing = self._route(x_BTD, segments_BT > 0)

        def cast(name: str, there: bool = True) -> Any:
            w: nnx.Param | None = getattr(self, name) if there else None
            return None if w is None else w[...].astype(x_BTD.dtype)

        gated, bias = self.config.gated, self.config.bias
        of_experts = ExpertWeights(
            cast("up"),
            cast("gate", gated),
            cast("down"),
            cast("up_bias", bias),
            cast("gate_bias", bias and gated),
            cast("down_bias", bias),
        )
        y_BTD = self.experts(x_BTD, ids_BTA, weights_BTA, of_experts)
        if self.config.moe.shared_experts:
            y_BTD = y_BTD + self.shared(x_BTD)
        return y_BTD, routing

    def _route(self, x_BTD: jax.Array, real_BT: jax.Array) -> tuple[jax.Array, jax.Array, Routing]:
        """The experts of each token (num_experts for none), their weights, and what was done."""
        moe = self.config.moe
        with jax.default_matmul_precision("highest"):
            logits_BTE = jnp.einsum("BTD,DE->BTE", x_BTD.astype(jnp.float32), self.router[...])
        if self.config.bias:
            logits_BTE = logits_BTE + self.router_bias[...]
        log_z_BT = jax.nn.logsumexp(logits_BTE, axis=-1)
        if moe.scoring == "sigmoid":
            scores_BTE = jax.nn.sigmoid(logits_BTE)
            shares_BTE = scores_BTE / (jnp.sum(scores_BTE, axis=-1, keepdims=True) + _TINY)
        else:
            scores_BTE = shares_BTE = jnp.exp(logits_BTE - log_z_BT[..., None])
        ranked_BTE = jax.lax.stop_gradient(scores_BTE)
        if moe.balance == "bias":
            ranked_BTE = ranked_BTE + jax.lax.stop_gradient(self.balance_bias[...])
        if moe.groups > 1:
            ranked_BTE = in_best_groups(ranked_BTE, moe.groups, moe.groups_per_token)
        # Named, so that the backward pass is of the experts that the forward pass chose: computed
        # again, scores that are nearly equal may come out in another order.
        ids_BTA = checkpoint_name(highest(ranked_BTE, moe.experts_per_token), "routing")
        # A comparison, not a look-up: its gradient needs no scatter.
        is_BTAE = ids_BTA[..., None] == jnp.arange(moe.num_experts, dtype=jnp.int32)
        weights_BTA = jnp.sum(jnp.where(is_BTAE, scores_BTE[:, :, None], 0), axis=-1)
        if moe.renormalise:
            weights_BTA = weights_BTA / (jnp.sum(weights_BTA, axis=-1, keepdims=True) + _TINY)
        weights_BTA = moe.route_scale * weights_BTA
        routing = Routing(
            jnp.sum(is_BTAE & real_BT[..., None, None], axis=(1, 2), dtype=jnp.int32),
            jnp.sum(jnp.where(real_BT[..., None], shares_BTE, 0), axis=1),
            jnp.sum(jnp.where(real_BT, jnp.square(log_z_BT), 0), axis=1),
        )
        return jnp.where(real_BT[..., None], ids_BTA, moe.num_experts), weights_BTA, routing


def highest(x: jax.Array, count: int) -> jax.Array:
    """Where the `count` highest numbers of the last axis are, highest first: int32 [..., count].

    One after the other: the compiler does not split `jax.lax.top_k` over devices, and would bring
    all numbers to all of them.
    """
    ids = []
    for _ in range(count):
        ids.append(jnp.argmax(x, axis=-1).astype(jnp.int32))
        x = jnp.where(jnp.arange(x.shape[-1]) == ids[-1][..., None], -jnp.inf, x)
    return jnp.stack(ids, axis=-1)


def in_best_groups(x_BTE: jax.Array, groups: int, count: int) -> jax.Array:
    """Scores of experts, -inf of those that are in none of the `count` best groups.

    A group is as good as the sum of its two highest scores (DeepSeek-V3).
    """
    grouped = x_BTE.reshape(*x_BTE.shape[:-1], groups, -1)
    two = jnp.sum(_at(grouped, highest(grouped, 2)), axis=-1)
    best = jnp.any(highest(two, count)[..., None] == jnp.arange(groups), axis=-2)
    return jnp.where(best[..., None], grouped, -jnp.inf).reshape(x_BTE.shape)


def _at(x: jax.Array, ids: jax.Array) -> jax.Array:
    """The numbers at `ids` of the last axis."""
    return jnp.sum(jnp.where(ids[..., None] == jnp.arange(x.shape[-1]), x[..., None, :], 0), -1)


_TINY = 1e-20  # where every score has become zero


class Order(NamedTuple):
    """Tokens, once for each of their experts, in the order of the experts: M = N x A rows.

    Attributes:
      token_M: of each row; rows that are given to no expert come last.
      at_M: which of N x A (token, expert) the row is.
      row_NA: of each (token, expert).
      sizes_E: rows of each expert, int32.
    """

    token_M: jax.Array
    at_M: jax.Array
    row_NA: jax.Array
    sizes_E: jax.Array


def in_order(ids_NA: jax.Array, experts: int) -> Order:
    """Sorts (token, expert) by expert; `experts` itself is none. Equals keep their order."""
    at_M = jnp.argsort(ids_NA.ravel(), stable=True)
    row_NA = jnp.argsort(at_M).reshape(ids_NA.shape)
    sizes_E = jnp.sum(ids_NA.ravel()[:, None] == jnp.arange(experts), axis=0, dtype=jnp.int32)
    return Order(at_M // ids_NA.shape[1], at_M, row_NA, sizes_E)


@jax.custom_vjp
def spread(x_ND: jax.Array, order: Order) -> jax.Array:
    """The rows of tokens: [M, D]. Its gradient gathers, where JAX would scatter."""
    return x_ND[order.token_M]


@jax.custom_vjp
def gathered(x_MD: jax.Array, order: Order) -> jax.Array:
    """The sum of each token's rows: [N, D], added in float32. What `spread` is the gradient of."""
    return jnp.sum(x_MD[order.row_NA], axis=1, dtype=jnp.float32).astype(x_MD.dtype)


@jax.custom_vjp
def by_row(w_NA: jax.Array, order: Order) -> jax.Array:
    """What each (token, expert) has, in the order of rows: [M]."""
    return w_NA.ravel()[order.at_M]


spread.defvjp(
    lambda x_ND, order: (spread(x_ND, order), order),
    lambda order, grad_MD: (gathered(grad_MD, order), None),
)
gathered.defvjp(
    lambda x_MD, order: (gathered(x_MD, order), order),
    lambda order, grad_ND: (spread(grad_ND, order), None),
)
by_row.defvjp(
    lambda w_NA, order: (by_row(w_NA, order), order),
    lambda order, grad_M: (grad_M[order.row_NA], None),
)


def mlps(
    grouped: Grouped,
    activate: Activate,
    x_MD: jax.Array,
    by_M: jax.Array,
    sizes_E: jax.Array,
    of: ExpertWeights,
) -> jax.Array:
    """Each expert's MLP on its rows, times the weight of each row: [M, D] in x's dtype.

    The weights multiply the hidden activations: it is the same, and the backward pass needs no
    output of an expert.

    Args:
      grouped: multiplies (model/grouped.py).
      activate: of model/mlp.py.
      x_MD: sorted by expert.
      by_M: float32 weights.
      sizes_E: rows of each expert, int32.
      of: the experts.
    """

    def product(
        x: jax.Array, w: jax.Array, bias: jax.Array | None, name: str, transposed: bool = False
    ) -> jax.Array:
        y = checkpoint_name(grouped(x, w, sizes_E, transposed), name)
        return y if bias is None else y + _of_rows(bias, sizes_E, x.shape[0])

    gate_MF = None
    if of.gate_EDF is not None:
        gate_MF = product(x_MD, of.gate_EDF, of.gate_bias_EF, "gate")
    h_MF = activate(product(x_MD, of.up_EDF, of.up_bias_EF, "up"), gate_MF)
    weighted_MF = (h_MF.astype(jnp.float32) * by_M[:, None]).astype(h_MF.dtype)
    y_MD = product(weighted_MF, of.down_EDF, None, "down", transposed=True)
    if of.down_bias_ED is None:
        return y_MD
    bias_MD = _of_rows(of.down_bias_ED, sizes_E, x_MD.shape[0])
    return y_MD + (bias_MD.astype(jnp.float32) * by_M[:, None]).astype(y_MD.dtype)


def _of_rows(bias_EX: jax.Array, sizes_E: jax.Array, rows: int) -> jax.Array:
    """The bias of each row's expert [M, X]; zero of rows that have none.

    A product with ones and zeros: its gradient needs no scatter.
    """
    ends = jnp.cumsum(sizes_E)
    at_M = jnp.arange(rows)[:, None]
    is_ME = (at_M < ends) & (at_M >= ends - sizes_E)
    return is_ME.astype(bias_EX.dtype) @ bias_EX


def on_one(grouped: Grouped, activate: Activate) -> Experts:
    """The `experts` of one device, which has all of them."""
    return functools.partial(_on_one, grouped, activate)


def _on_one(
    grouped: Grouped,
    activate: Activate,
    x_BTD: jax.Array,
    ids_BTA: jax.Array,
    weights_BTA: jax.Array,
    of: ExpertWeights,
) -> jax.Array:
    order = in_order(ids_BTA.reshape(-1, ids_BTA.shape[-1]), of.up_EDF.shape[0])
    x_MD = spread(x_BTD.reshape(-1, x_BTD.shape[-1]), order)
    by_M = by_row(weights_BTA.reshape(order.row_NA.shape), order)
    y_MD = mlps(grouped, activate, x_MD, by_M, order.sizes_E, of)
    return gathered(y_MD, order).reshape(x_BTD.shape)
