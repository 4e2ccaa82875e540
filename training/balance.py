"""What keeps the experts of a model equally busy: two losses, and the bias that is no parameter of
the loss.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.decoder import Decoder
from model.moe import Routing
from model.parameters import Params

LOAD = "expert_load"
"""Of the sums of a batch, the one that counts for each layer and expert the tokens that chose it:
int32 [L, E]."""


class Balance(NamedTuple):
    """Attributes:
    objective: what the loss that is differentiated gets.
    sums: "balance_loss" and "router_z_loss", for people; and LOAD.
    """

    objective: jax.Array
    sums: dict[str, jax.Array]


def balance(config: ModelConfig, routing: Routing, weights_BT: jax.Array) -> Balance:
    """The load-balancing loss and the router's z-loss of a batch, as sums over its tokens.

    The load-balancing loss is of each row by itself (the sequence-wise loss of DeepSeek-V3, 2024):

        tokens of the row  x  E / A  x  the sum over experts of f x P,

    f: the part of the row's tokens that chose the expert; P: the mean of its scores there, where
    those of a token sum to 1. So it is 1 a token where all experts have as many; and rows add up,
    however they are cut into microbatches or over devices. (The loss of Shazeer et al. 2017 and
    Switch, of all tokens of a batch, is another number for each way to cut it.) Both losses are
    summed over layers where they are differentiated, and are the mean of the layers for people.

    Args:
      config: of the decoder.
      routing: of its layers, [L, ...].
      weights_BT: 1 where a target is predicted. A row without any has no part in it; in the others
        padding has none (see Moe).
    """
    moe = config.moe
    learnt_B = jnp.any(weights_BT > 0, axis=1)
    chosen_LBE = routing.chosen_BE * learnt_B[:, None]
    tokens_LB = jnp.sum(chosen_LBE, axis=-1) / moe.experts_per_token
    of_rows_LB = jnp.sum(chosen_LBE * routing.scores_BE, axis=-1) / jnp.maximum(tokens_LB, 1)
    balanced_L = jnp.sum(of_rows_LB, axis=-1) * (moe.num_experts / moe.experts_per_token)
    z_L = jnp.sum(jnp.where(learnt_B, routing.z_B, 0), axis=-1)
    sums = {"balance_loss": jnp.mean(balanced_L), "router_z_loss": jnp.mean(z_L)}
    objective = moe.balance_weight * jnp.sum(balanced_L) + moe.router_z_weight * jnp.sum(z_L)
    return Balance(objective, sums | {LOAD: jnp.sum(chosen_LBE, axis=1)})


def nudged(model: Decoder, params: Params, load_LE: jax.Array) -> Params:
    """The parameters after a step, with the biases by which experts are chosen moved by a fixed
    amount, up where an expert had fewer tokens than the mean of its layer (Wang et al. 2024).

    They have no gradient and so stay where they are in every optimizer: weight decay leaves
    biases alone.

    Args:
      model: whose parameters they are; an outline will do.
      params: where their blocks lie in the model's order.
      load_LE: in the order of depth.
    """
    moe = model.config.moe
    if moe.balance != "bias" or not moe.num_experts:
        return params
    load_LE = load_LE.astype(jnp.float32)
    if model.means.order is not None:
        load_LE = load_LE[jnp.asarray(model.means.order)]
    missing_LE = jnp.mean(load_LE, axis=-1, keepdims=True) - load_LE

    def nudge(path: tuple[Any, ...], param: jax.Array) -> jax.Array:
        if path[-1].key != "balance_bias":
            return param
        return param + moe.bias_rate * jnp.sign(missing_LE)

    return jax.tree_util.tree_map_with_path(nudge, params)


def extremes(load_LE: jax.Array) -> dict[str, jax.Array]:
    """The tokens of the busiest and of the idlest expert of all layers, relative to the mean of
    its layer: 1 where all have as many.
    """
    load_LE = load_LE.astype(jnp.float32)
    of_mean_LE = load_LE / jnp.maximum(jnp.mean(load_LE, axis=-1, keepdims=True), 1e-9)
    return {"expert_load_max": jnp.max(of_mean_LE), "expert_load_min": jnp.min(of_mean_LE)}
