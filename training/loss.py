"""The next-token loss, as sums that add up over rows, microbatches and devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from model.decoder import Decoder


class Sums(NamedTuple):
    """Sums over predicted tokens, float32 scalars.

    Attributes:
      loss: negative log-likelihood, nats.
      z_squared: log(Z)^2 of the softmax's normaliser.
      tokens: how many.
      bytes: of text that they stand for.
    """

    loss: jax.Array
    z_squared: jax.Array
    tokens: jax.Array
    bytes: jax.Array

    @classmethod
    def zero(cls) -> "Sums":
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))


def batch_sums(model: Decoder, batch: dict[str, jax.Array]) -> Sums:
    """Runs the model over a batch (see data/stream.py) and sums over its weighted targets."""
    x_BTD, _ = model.features(batch["tokens"], batch["positions"], batch["segments"])
    logits = model.unembed(x_BTD)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    at_target = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
    weights = batch["weights"]
    return Sums(
        loss=jnp.sum((log_z - at_target) * weights),
        z_squared=jnp.sum(jnp.square(log_z) * weights),
        tokens=jnp.sum(weights),
        bytes=jnp.sum(batch["bytes"].astype(jnp.float32)),
    )
