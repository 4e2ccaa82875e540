"""The learning rate over the steps of a run."""

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
