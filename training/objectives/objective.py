"""The objectives by name, each as a function of a model and a batch."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from model import parameters
from model.decoder import Decoder
from model.parameters import Params
from training.balance import balance
from training.chunks import ALONE, Beside
from training.loss import Sums, batch_sums, by_source, count, spread_out
from training.objectives.config import ObjectiveConfig
from training.objectives.distillation import IDS, LOG_PROBS, REST, Distill
from training.objectives.likelihood import log_likelihoods
from training.objectives.pairs import pairs
from training.objectives.preferences import compared

Batch = dict[str, jax.Array]

REFERENCE = "reference"
"""In a batch: the reference's log P(target), float32 [B, T]."""

OF_PAIRS = (
    "preference_loss accuracy margin reward_chosen reward_rejected log_prob_chosen "
    "log_prob_rejected"
).split()
"""Of the sums of preferences, those that are divided by their pairs."""


class Objective(NamedTuple):
    """Attributes:
    sums: (model, batch, mesh, parameters of the teacher) -> what is differentiated, and the sums,
      both of which add up over rows.
    of: the sum that what is differentiated is divided by, in the end.
    per: of the other sums, those that are divided by another than "tokens" (training/loss.py).
    """

    sums: Callable[[Decoder, Batch, Mesh, Params | None], tuple[jax.Array, Sums]]
    of: str = "tokens"
    per: Mapping[str, str] = MappingProxyType({})


def next_token(z_loss: float) -> Objective:
    """The text itself."""
    return Objective(lambda model, batch, mesh, _: batch_sums(model, batch, mesh, z_loss))


def objective(
    config: ObjectiveConfig, z_loss: float = 0.0, teacher: Decoder | None = None
) -> Objective:
    """What a run minimises.

    Args:
      config: which, and how.
      z_loss: weight of log(Z)^2.
      teacher: an outline of the decoder that is asked in every step: what "distill" learns from,
        or the reference; None where what it says is in the batches.
    """
    if config.name == "next_token":
        return next_token(z_loss)
    if config.name == "distill":
        return Objective(functools.partial(_distilled, config, z_loss, teacher))
    per = dict.fromkeys(OF_PAIRS, "pairs")
    return Objective(functools.partial(_preferred, config, teacher), "pairs", per)


def _distilled(
    config: ObjectiveConfig,
    z_loss: float,
    teacher: Decoder | None,
    model: Decoder,
    batch: Batch,
    mesh: Mesh,
    params: Params | None,
) -> tuple[jax.Array, Sums]:
    measure = Distill(
        config.divergence,
        config.jsd_weight,
        config.temperature,
        config.mix,
        z_loss,
        None if teacher is None else teacher.config,
    )
    if teacher is None:
        said = spread_out(mesh, {name: batch[name] for name in (IDS, LOG_PROBS, REST)})
        return batch_sums(model, batch, mesh, measure=measure, beside=Beside(said))
    assert params is not None
    asked = parameters.bind(teacher, params)
    return batch_sums(model, batch, mesh, measure=measure, beside=_features(asked, batch, mesh))


def _features(teacher: Decoder, batch: Batch, mesh: Mesh) -> Beside:
    """What the teacher's logits are made of."""
    batch = spread_out(mesh, {name: batch[name] for name in ("tokens", "positions", "segments")})
    x_BTD, _, _ = teacher.features(batch["tokens"], batch["positions"], batch["segments"])
    return ALONE._replace(table_VD=teacher.table[...], x_BTD=x_BTD)


def _preferred(
    config: ObjectiveConfig,
    teacher: Decoder | None,
    model: Decoder,
    batch: Batch,
    mesh: Mesh,
    params: Params | None,
) -> tuple[jax.Array, Sums]:
    """The sums are those of `compared` and "pairs"; "loss", nats, of the tokens of both answers;
    and their "tokens" and "bytes".
    """
    reference_BT = jnp.zeros_like(batch["weights"])
    if config.learns_from and teacher is None:
        reference_BT = spread_out(mesh, {REFERENCE: batch[REFERENCE]})[REFERENCE]
    elif teacher is not None:
        assert params is not None
        reference_BT = jax.lax.stop_gradient(
            likelihoods(parameters.bind(teacher, params), batch, mesh)
        )
    batch = spread_out(mesh, batch)
    x_BTD, _, routing = model.features(batch["tokens"], batch["positions"], batch["segments"])
    log_probs_BT = log_likelihoods(model.config, mesh, model.table[...], x_BTD, batch["targets"])
    found = pairs(log_probs_BT, reference_BT, batch["segments"], batch["weights"])
    of_rows = {name: jnp.sum(x_BP, axis=1) for name, x_BP in compared(config, found).items()}
    sums = {name: jnp.sum(x_B) for name, x_B in of_rows.items()}
    loss_B = -jnp.sum(log_probs_BT * batch["weights"], axis=1)
    sums["loss"] = jnp.sum(loss_B)
    sums |= {"tokens": count(batch["weights"]), "bytes": count(batch["bytes"])}
    sums["pairs"] = count(found.is_pair)
    if routing is not None:
        sums |= balance(model.config, routing, batch["weights"]).sums
    if "source" in batch:
        tokens_B = jnp.sum(batch["weights"].astype(jnp.int32), axis=1)
        sums |= by_source(batch["source"], loss_B, tokens_B)
    return sums["preference_loss"], sums


def one_row(config: ObjectiveConfig, length: int) -> dict[str, np.ndarray]:
    """What is stored with a row of a batch, as zeros [1, T, ...]: to compile for."""
    if not (config.learns_from and config.stored):
        return {}
    if config.learns_from == "reference":
        return {REFERENCE: np.zeros((1, length), np.float32)}
    likeliest = (1, length, config.top_k)
    return {
        IDS: np.zeros(likeliest, np.int32),
        LOG_PROBS: np.zeros(likeliest, np.float16),
        REST: np.zeros((1, length), np.float16),
    }


def likelihoods(model: Decoder, batch: Batch, mesh: Mesh) -> jax.Array:
    """log P(target) of each token of a batch, in the order of `spread_out`: [B, T], float32."""
    batch = spread_out(mesh, batch)
    x_BTD, _, _ = model.features(batch["tokens"], batch["positions"], batch["segments"])
    return log_likelihoods(model.config, mesh, model.table[...], x_BTD, batch["targets"])
