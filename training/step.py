"""One optimizer step: the function that is compiled."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from model import parameters
from model.decoder import Decoder
from sharding.compiler import options
from sharding.placement import on_devices
from sharding.table import sharding
from training.balance import LOAD, extremes, nudged
from training.config import TrainConfig
from training.fields import flat
from training.loss import Sums, means
from training.objectives.objective import Objective, next_token
from training.state import NOTHING, Fixed, TrainState, abstract_params, shardings_of

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Fixed, Batch], tuple[TrainState, Metrics]]


def gradients(
    model: Decoder,
    params: parameters.Params,
    batch: Batch,
    accumulation: int,
    z_loss: float,
    mesh: Mesh,
    fixed: Fixed = NOTHING,
    minimised: Objective | None = None,
) -> tuple[parameters.Params, Sums]:
    """Gradients of the mean loss a predicted token, and the sums behind the metrics.

    Microbatches add up sums, not means, and one division by all predicted tokens comes last: so
    the result is that of the whole batch, however unequally padding falls on the microbatches.
    Gradients lie as the parameters do, those of every microbatch too: what is added up is sharded.
    They are those of `params`; of the parameters in `fixed` none is computed.

    Args:
      minimised: the objective, and what its sum is divided by; None is the next token, with z_loss.
    """
    names = flat(params).keys()
    where = shardings_of(parameters.part(abstract_params(model, mesh), names))
    minimised = minimised or next_token(z_loss)

    def objective(params: parameters.Params, rows: Batch) -> tuple[jax.Array, Sums]:
        whole = parameters.bind(model, parameters.joined(params, fixed.params))
        return minimised.sums(whole, rows, mesh, fixed.teacher)

    def one(rows: Batch) -> tuple[parameters.Params, Sums]:
        (_, sums), grads = jax.value_and_grad(objective, has_aux=True)(params, rows)
        return jax.lax.with_sharding_constraint(grads, where), sums

    if accumulation == 1:
        grads, sums = one(batch)
    else:
        # Row r goes to microbatch r % accumulation: contiguous rows stay on their devices.
        micro = jax.tree.map(
            lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def add(total: Any, rows: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, one(rows)), None

        first = jax.tree.map(lambda x: x[0], micro)
        sums_like = jax.eval_shape(objective, params, first)[1]
        zeros = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), (params, sums_like))
        (grads, sums), _ = jax.lax.scan(add, zeros, micro)
    scale = 1 / jnp.maximum(sums[minimised.of], 1)
    return jax.tree.map(lambda g: g * scale, grads), sums


def make_step(
    model: Decoder,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    config: TrainConfig,
    mesh: Mesh,
    state: TrainState,
    fixed: Fixed = NOTHING,
    minimised: Objective | None = None,
) -> Step:
    """The jitted step, with explicit shardings; the state it is given is donated.

    Args:
      model: an outline of the decoder.
      tx, schedule: from training.optimizer.
      config: accumulation and z-loss.
      mesh: of all arrays.
      state: the abstract state.
      fixed: abstract, too.
      minimised: the objective; None is the next token.

    Returns:
      step(state, fixed, batch) -> the next state, and scalars: the means of the loss's sums a
      predicted token (loss in nats, z_loss; float32), tokens and bytes predicted (int32), gradient
      norm (before clipping), parameter norm (after the update) and learning rate (float32); norms
      are of what moves. Other objectives have other means (training/objectives/objective.py). With
      experts also their losses and the extremes of their load (training/balance.py).
    """

    where = shardings_of(state)
    alone = sharding(mesh, ())
    minimised = minimised or next_token(config.z_loss)

    def step(state: TrainState, fixed: Fixed, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, sums = gradients(
            model, state.params, batch, config.accumulation, config.z_loss, mesh, fixed, minimised
        )
        opt_state = on_devices(state.opt_state, where.opt_state)
        updates, opt_state = tx.update(grads, opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        of_experts = {}
        if (load := sums.pop(LOAD, None)) is not None:
            params, of_experts = nudged(model, params, load), extremes(load)
        metrics = {
            **means(sums, minimised.per),
            **of_experts,
            "grad_norm": optax.global_norm(grads),
            "param_norm": optax.global_norm(params),
            "learning_rate": schedule(state.step),
        }
        return TrainState(params, opt_state, state.step + 1), metrics

    return jax.jit(
        step,
        in_shardings=(where, shardings_of(fixed), sharding(mesh, ("batch",))),
        out_shardings=(where, alone),
        donate_argnums=0,
        compiler_options=options(mesh),
    )
