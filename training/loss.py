"""The loss of a batch, as sums that add up over rows, microbatches and devices."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from model.decoder import Decoder
from sharding.order import spread
from training import head
from training.balance import LOAD, balance
from training.chunks import ALONE, Beside
from training.head import Measure
from training.objectives.next_token import NextToken

Sums = dict[str, jax.Array]
"""Sums over the predicted tokens of a batch, by name.

"tokens" (how many) and "bytes" (of text that they stand for) are counts: int32, which is exact up
to 2^31 - 1 a step. From there to 2^32 (a billion tokens a step) a count is negative, which the
recorder and `evaluate` refuse; so is "pairs", of objectives of such. Of a mixture there are
"source_loss" and "source_tokens", [S]; of a model with experts LOAD (training/balance.py), [L, E].
All others are float32 scalars.
"""


def count(x: jax.Array) -> jax.Array:
    """The exact sum of whole numbers, int32 (float32 would round it above 2^24)."""
    return jnp.sum(x.astype(jnp.int32))


def means(sums: Sums, per: Mapping[str, str] = MappingProxyType({})) -> Sums:
    """What people read: a count stays as it is, every other sum is divided by its tokens.

    Args:
      sums: of a batch.
      per: of sums that are divided by another count, which.
    """
    counts = {"tokens", "bytes", "pairs", "source_tokens", LOAD}
    of = {"source_loss": "source_tokens", **per}

    def mean(name: str, x: jax.Array) -> jax.Array:
        return x / jnp.maximum(sums[of.get(name, "tokens")], 1)

    return {name: x if name in counts else mean(name, x) for name, x in sums.items()}


def batch_sums(
    model: Decoder,
    batch: dict[str, jax.Array],
    mesh: Mesh,
    z_loss: float = 0.0,
    measure: Measure | None = None,
    beside: Beside = ALONE,
) -> tuple[jax.Array, Sums]:
    """Runs the model over a batch (see data/rows.py) and sums over its predicted targets.

    Args:
      model: with its parameters.
      batch: tokens, targets, segments, positions, weights (0 or 1), bytes: [B, T], in the order
        of the text; of a mixture also source, [B, S], 1 where the row is of the source.
      mesh: of all arrays.
      z_loss: weight of the z-loss in the objective.
      measure: of the logits; None is that of the next token, with this z-loss.
      beside: what the measure is shown, too, in the order of `spread_out`.

    Returns:
      the objective, loss + z_loss x the sum of log(Z)^2, or what the measure says, which is what
      may be differentiated; and the sums: "loss" (nats), "z_loss" (log(Z)^2) and what else the
      measure has, "tokens" and "bytes", of a mixture also "source_loss" and "source_tokens". A
      model with experts adds its losses to the objective, and their sums (training/balance.py).
    """
    batch = spread_out(mesh, batch)
    x_BTD, _, routing = model.features(batch["tokens"], batch["positions"], batch["segments"])
    objective, of_rows = head.losses(
        model.config,
        mesh,
        measure or NextToken(z_loss),
        model.table[...],
        x_BTD,
        batch["targets"],
        batch["weights"],
        beside,
    )
    sums = {name: jnp.sum(values) for name, values in of_rows._asdict().items()}
    sums |= {"tokens": count(batch["weights"]), "bytes": count(batch["bytes"])}
    if routing is not None:
        of_experts = balance(model.config, routing, batch["weights"])
        objective, sums = objective + of_experts.objective, sums | of_experts.sums
    if "source" in batch:
        tokens_B = jnp.sum(batch["weights"].astype(jnp.int32), axis=1)
        sums |= by_source(batch["source"], of_rows.loss, tokens_B)
    return objective, sums


def spread_out(mesh: Mesh, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A batch on the devices that hold its tokens (sharding/order.py)."""
    return {name: x if name == "source" else spread(mesh, x) for name, x in batch.items()}


def by_source(source_BS: jax.Array, loss_B: jax.Array, tokens_B: jax.Array) -> Sums:
    """The loss of each source of a mixture, and the tokens that it is of: [S]."""
    return {
        "source_loss": jnp.sum(loss_B[:, None] * source_BS, axis=0),
        "source_tokens": jnp.sum(tokens_B[:, None] * source_BS, axis=0),
    }
