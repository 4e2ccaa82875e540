"""The learning-rate schedule and AdamW."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from training.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate of the step that follows `count` finished ones (see OptimizerConfig)."""
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    warmup = config.warmup_steps

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        count = jnp.asarray(count, jnp.float32)
        rising = peak * (count + 1) / max(warmup, 1)
        if config.schedule == "constant":
            after = jnp.full_like(count, peak)
        elif config.schedule == "wsd":
            left = (steps - 1 - count) / config.decay_steps
            after = final + (peak - final) * jnp.clip(left, 0, 1)
        else:
            done = jnp.clip((count - warmup) / max(steps - 1 - warmup, 1), 0, 1)
            after = final + (peak - final) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return jnp.where(count < warmup, rising, after)

    return schedule


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clipping, then AdamW, with weight decay on everything but norm scales and biases.

    Args:
      config: the optimizer.
      steps: of the whole run, for the schedule.
    """

    def decayed(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not path[-1].key.endswith(("scale", "bias")), params
        )

    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.adamw(
            learning_rate(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )
