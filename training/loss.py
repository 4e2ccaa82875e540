"""The next-token loss, as sums that add up over rows, microbatches and devices."""

import functools

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.decoder import Decoder, unembed

_CHUNK_LOGITS = 1 << 25  # of one device: 128 MB in float32
_ROWS = "loss of each row"  # until they are added up by source


Sums = dict[str, jax.Array]
"""Sums over the predicted tokens of a batch, by name.

"tokens" (how many) and "bytes" (of text that they stand for) are counts: int32, which is exact up
to 2^31 - 1 a step. From there to 2^32 (a billion tokens a step) a count is negative, which the
recorder and `evaluate` refuse. Of a mixture there are "source_loss" and "source_tokens", [S]. All
others are float32 scalars, and named where they are computed: in `_chunk_loss`.
"""


def count(x: jax.Array) -> jax.Array:
    """The exact sum of whole numbers, int32 (float32 would round it above 2^24)."""
    return jnp.sum(x.astype(jnp.int32))


def means(sums: Sums) -> Sums:
    """What people read: a count stays as it is, every other sum is divided by its tokens."""
    tokens = jnp.maximum(sums["tokens"], 1)
    counts = {"tokens", "bytes", "source_tokens"}
    of = {"source_loss": jnp.maximum(sums.get("source_tokens", tokens), 1)}
    return {name: x if name in counts else x / of.get(name, tokens) for name, x in sums.items()}


def batch_sums(
    model: Decoder, batch: dict[str, jax.Array], z_loss: float = 0.0, devices: int = 1
) -> tuple[jax.Array, Sums]:
    """Runs the model over a batch (see data/rows.py) and sums over its predicted targets.

    Args:
      model: with its parameters.
      batch: tokens, targets, segments, positions, weights (0 or 1), bytes: [B, T]; of a mixture
        also source, [B, S], 1 where the row is of the source.
      z_loss: weight of the z-loss in the objective.
      devices: over how many the batch and the vocabulary are split, to size the chunks.

    Returns:
      the objective, loss + z_loss x the sum of log(Z)^2, which is what may be differentiated; and
      the sums.
    """
    x_BTD, _ = model.features(batch["tokens"], batch["positions"], batch["segments"])
    logits = x_BTD.shape[0] * x_BTD.shape[1] * model.config.padded_vocab_size // devices
    chunks = _chunks(x_BTD.shape[1], logits)
    objective, sums = _head(
        model.config, z_loss, chunks, model.table[...], x_BTD, batch["targets"], batch["weights"]
    )
    loss_B = sums.pop(_ROWS)
    sums |= {"tokens": count(batch["weights"]), "bytes": count(batch["bytes"])}
    if "source" in batch:
        sums |= _by_source(batch["source"], loss_B, batch["weights"])
    return objective, sums


def _by_source(source_BS: jax.Array, loss_B: jax.Array, weights_BT: jax.Array) -> Sums:
    """The loss and the predicted tokens of each source of a mixture: [S]."""
    tokens_B = jnp.sum(weights_BT.astype(jnp.int32), axis=1)
    return {
        "source_loss": jnp.sum(loss_B[:, None] * source_BS, axis=0),
        "source_tokens": jnp.sum(tokens_B[:, None] * source_BS, axis=0),
    }


def _chunks(length: int, logits: int) -> int:
    """The smallest number of equal parts of the sequence that keeps the logits of one small."""
    wanted = min(-(-logits // _CHUNK_LOGITS), length)
    return next(n for n in range(max(wanted, 1), length + 1) if length % n == 0)


Pair = tuple[jax.Array, jax.Array]  # gradients of table and features
Total = tuple[jax.Array, Sums]  # the objective, and the sums
Chunk = tuple[jax.Array, jax.Array, jax.Array]  # features, targets, weights


def _chunk_loss(
    table_VD: jax.Array,
    x_BCD: jax.Array,
    targets_BC: jax.Array,
    weights_BC: jax.Array,
    config: ModelConfig,
    z_loss: float,
) -> Total:
    """The objective and the sums of a chunk of the sequence. A sum is named here and only here."""
    logits = unembed(config, table_VD, x_BCD)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A comparison, not a look-up: its gradient needs no scatter, and it splits over the vocabulary.
    is_target = jnp.arange(logits.shape[-1]) == targets_BC[..., None]
    at_target = jnp.sum(jnp.where(is_target, logits, 0), axis=-1)
    loss_B = jnp.sum((log_z - at_target) * weights_BC, axis=1)  # negative log-likelihood, nats
    sums = {
        "loss": jnp.sum(loss_B),
        "z_loss": jnp.sum(jnp.square(log_z) * weights_BC),  # of the softmax's normaliser
        _ROWS: loss_B,
    }
    return sums["loss"] + z_loss * sums["z_loss"], sums


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _head(
    config: ModelConfig,
    z_loss: float,
    chunks: int,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> Total:
    """Output projection and loss, chunk by chunk: the logits never exist as a whole.

    The gradient with respect to table and features is computed beside the loss, while a chunk's
    logits are at hand, so nothing is computed twice (only the objective has a gradient).
    """

    def one(total: Total, chunk: Chunk) -> tuple[Total, None]:
        sums = _chunk_loss(table_VD, *chunk, config, z_loss)
        return jax.tree.map(jnp.add, total, sums), None

    split = _split(chunks, x_BTD, targets_BT, weights_BT)
    return jax.lax.scan(one, _zeros(config, table_VD, split), split)[0]


def _head_forward(
    config: ModelConfig,
    z_loss: float,
    chunks: int,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> tuple[Total, Pair]:
    gradient = jax.value_and_grad(_chunk_loss, argnums=(0, 1), has_aux=True)

    def one(
        carry: tuple[Total, jax.Array], chunk: Chunk
    ) -> tuple[tuple[Total, jax.Array], jax.Array]:
        total, grad_VD = carry
        sums, (more_VD, grad_BCD) = gradient(table_VD, *chunk, config, z_loss)
        return (jax.tree.map(jnp.add, total, sums), grad_VD + more_VD), grad_BCD

    split = _split(chunks, x_BTD, targets_BT, weights_BT)
    start = (_zeros(config, table_VD, split), jnp.zeros_like(table_VD))
    (total, grad_VD), grads = jax.lax.scan(one, start, split)
    return total, (grad_VD, grads.swapaxes(0, 1).reshape(x_BTD.shape))


def _head_backward(
    config: ModelConfig, z_loss: float, chunks: int, grads: Pair, outer: Total
) -> tuple[jax.Array, jax.Array, None, None]:
    grad_VD, grad_BTD = grads
    return grad_VD * outer[0], (grad_BTD * outer[0]).astype(grad_BTD.dtype), None, None


_head.defvjp(_head_forward, _head_backward)


def _zeros(config: ModelConfig, table_VD: jax.Array, split: Chunk) -> Total:
    """What the sums of no chunk at all are."""

    def one(table_VD: jax.Array, x: jax.Array, targets: jax.Array, weights: jax.Array) -> Total:
        return _chunk_loss(table_VD, x[0], targets[0], weights[0], config, 0.0)

    like = jax.eval_shape(one, table_VD, *split)
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), like)


def _split(chunks: int, x: jax.Array, targets: jax.Array, weights: jax.Array) -> Chunk:
    """[B, T, ...] -> [chunks, B, T / chunks, ...]: rows stay on their devices."""

    def split(a: jax.Array) -> jax.Array:
        return a.reshape(a.shape[0], chunks, -1, *a.shape[2:]).swapaxes(0, 1)

    return split(x), split(targets), split(weights)
