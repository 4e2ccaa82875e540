"""The output projection with its loss: logits exist for a part of the sequence at a time.

Every device works on its own rows and its own part of the vocabulary (`shard_map`): the table is
gathered along `fsdp` once, before the loop over the parts, in the dtype that it is multiplied in;
its gradient is summed in float32 on each device and scattered once, after the loop. Where the
vocabulary is split, the features are too, along their length: inside the loop those of a part are
gathered and their gradient is scattered, beside numbers of [B, C].
"""

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from model.config import ModelConfig
from model.layers import matmul_precision
from sharding import collectives
from sharding.collectives import Axes
from sharding.table import mesh_axes, sharding


class _Split(NamedTuple):
    """The mesh axes that rows, their tokens, features and the vocabulary are split along.

    `inner` are those of the vocabulary that split the length of features once more.
    """

    batch: Axes
    length: Axes
    inner: Axes
    embed: Axes
    vocab: Axes


class Losses(NamedTuple):
    """Sums over the predicted tokens of each row: [B], float32.

    Attributes:
      loss: negative log-likelihoods, nats.
      z_loss: squared logarithms of the softmax's normalizer.
    """

    loss: jax.Array
    z_loss: jax.Array


_Learn = Literal["nothing", "features", "both"]
"""What of a chunk there are gradients of: features alone where the table stays as it is."""


class _Gradients(NamedTuple):
    """Of the objective: in the table, [V, D] float32, or None; and in the features, [B, T, D]."""

    table: jax.Array | None
    features: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def losses(
    config: ModelConfig,
    mesh: Mesh,
    z_loss: float,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> tuple[jax.Array, Losses]:
    """The losses of each row, and the objective: loss + z_loss x z_loss, summed over all rows.

    The gradient is computed beside the loss, while a chunk's logits are at hand, so nothing is
    computed twice. Only the objective has one.

    Args:
      config: of the decoder.
      mesh: of all arrays.
      z_loss: weight of the z-loss in the objective.
      table_VD: float32, or in the features' dtype.
      x_BTD: features, in the dtype that matrices are multiplied in.
      targets_BT, weights_BT: ids to predict, and 1 where they count.
    """
    return _on_mesh(config, mesh, z_loss, "nothing", table_VD, x_BTD, targets_BT, weights_BT)[0]


def _forward(
    config: ModelConfig, mesh: Mesh, z_loss: float, *arrays: Any
) -> tuple[tuple[jax.Array, Losses], _Gradients]:
    # What is not differentiated with respect to a table that stays as it is computes no gradient.
    learn: _Learn = "both" if arrays[0].perturbed else "features"
    return _on_mesh(config, mesh, z_loss, learn, *(array.value for array in arrays))


def _backward(
    config: ModelConfig,
    mesh: Mesh,
    z_loss: float,
    gradients: _Gradients,
    outer: tuple[jax.Array, Losses],
) -> tuple[jax.Array | None, jax.Array, None, None]:
    table_VD, x_BTD = gradients
    of_table = None if table_VD is None else table_VD * outer[0]
    return of_table, x_BTD * outer[0].astype(x_BTD.dtype), None, None


losses.defvjp(_forward, _backward, symbolic_zeros=True)


def _on_mesh(
    config: ModelConfig, mesh: Mesh, z_loss: float, learn: _Learn, *arrays: jax.Array
) -> tuple[tuple[jax.Array, Losses], Any]:
    """`_on_device` on every device; its second result is `_Gradients`, or None if not to learn."""
    table: Any = sharding(mesh, ("vocab", "embed"), arrays[0].shape).spec
    length = mesh_axes(mesh, "length", arrays[1].shape[1])
    whole = mesh_axes(mesh, "head_length", arrays[1].shape[1])
    split = _Split(
        batch=mesh_axes(mesh, "batch", None),
        length=length,
        inner=tuple(axis for axis in whole if axis not in length),
        embed=mesh_axes(mesh, "embed", None),
        vocab=mesh_axes(mesh, "vocab", None),
    )
    alone: Any = PartitionSpec()
    rows: Any = PartitionSpec(split.batch)
    tokens: Any = PartitionSpec(split.batch, whole)
    work = functools.partial(_on_device, config, split, z_loss, learn)
    both = _Gradients(table, tokens)
    gradients = {"nothing": None, "features": both._replace(table=None), "both": both}[learn]
    return jax.shard_map(
        work,
        mesh=mesh,
        in_specs=(table, tokens, tokens, tokens),
        out_specs=((alone, Losses(rows, rows)), gradients),
        check_vma=False,  # _on_device says what is summed over which axes
    )(*arrays)


def _on_device(
    config: ModelConfig,
    split: _Split,
    z_loss: float,
    learn: _Learn,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
) -> tuple[tuple[jax.Array, Losses], _Gradients | None]:
    """The loss of this device's part of the rows; `table_VD` is its part of the table.

    The tokens are its part too of those that it computes the loss of (see `_Split`).
    """
    first = collectives.index(split.vocab) * table_VD.shape[0]
    table_VD = collectives.gathered(table_VD.astype(x_BTD.dtype), split.embed, 1)
    rows, length, _ = x_BTD.shape
    tokens = rows * length * collectives.size(split.inner)
    # Of each its logits here, and its features where they are gathered: stages have few logits.
    numbers = max(table_VD.shape[0], table_VD.shape[1] if split.inner else 0)
    chunks = _chunks(length, 4 * tokens * numbers, config.logits_mb << 20)
    padding = -length % chunks  # with weight zero
    parts = tuple(
        _cut(chunks, jnp.pad(a, ((0, 0), (0, padding), *((0, 0),) * (a.ndim - 2))))
        for a in (x_BTD, targets_BT, weights_BT)
    )
    work = functools.partial(_chunk, config, split, z_loss, learn, table_VD, first)
    zeros = jnp.zeros(rows, jnp.float32)

    def result(total: Losses) -> tuple[jax.Array, Losses]:
        of_rows = Losses(*(collectives.total(one, split.length) for one in total))
        here = jnp.sum(of_rows.loss) + z_loss * jnp.sum(of_rows.z_loss)
        return collectives.total(here, split.batch), of_rows

    if learn == "nothing":

        def add(total: Losses, chunk: tuple[jax.Array, ...]) -> tuple[Losses, None]:
            return jax.tree.map(jnp.add, total, work(*chunk)[0]), None

        total, _ = jax.lax.scan(add, Losses(zeros, zeros), parts)
        return result(total), None

    def add_both(
        carry: tuple[Losses, jax.Array | None], chunk: tuple[jax.Array, ...]
    ) -> tuple[tuple[Losses, jax.Array | None], jax.Array]:
        found, gradients = work(*chunk)
        assert gradients is not None
        carry = jax.tree.map(jnp.add, carry, (found, gradients.table))
        return carry, gradients.features

    of_table = jnp.zeros(table_VD.shape, jnp.float32) if learn == "both" else None
    (total, grad_VD), grads = jax.lax.scan(add_both, (Losses(zeros, zeros), of_table), parts)
    if grad_VD is not None:
        grad_VD = _scattered(grad_VD, split.embed, config.logits_mb << 20)
        others = (*split.batch, *split.length)
        grad_VD = collectives.total(grad_VD, tuple(a for a in others if a not in split.embed))
    grad_BTD = grads.swapaxes(0, 1).reshape(rows, -1, x_BTD.shape[2])[:, :length]
    gradients = _Gradients(grad_VD, grad_BTD)
    # The backward pass waits until the table's gradient is scattered: the compiler would keep it
    # whole to the end of the step.
    gradients = jax.lax.optimization_barrier(gradients)
    return result(total), gradients


def _scattered(x_VD: jax.Array, axes: collectives.Axes, most: int) -> jax.Array:
    """The sum over devices, of which each keeps a part of D.

    A part of V of at most so many bytes after the other: the compiler of TPUs sums up all of what
    is scattered, and only then takes a part of it.
    """
    size, width = x_VD.shape
    parts = next(n for n in range(1, size + 1) if size % n == 0 and x_VD.nbytes <= n * most)
    if not axes or parts == 1:
        return collectives.scattered(x_VD, axes, 1)
    found = jax.lax.map(lambda x: collectives.scattered(x, axes, 1), x_VD.reshape(parts, -1, width))
    return found.reshape(size, -1)


def _chunk(
    config: ModelConfig,
    split: _Split,
    z_loss: float,
    learn: _Learn,
    table_VD: jax.Array,
    first: jax.Array,
    x_BCD: jax.Array,
    targets_BC: jax.Array,
    weights_BC: jax.Array,
) -> tuple[Losses, _Gradients | None]:
    """The losses of a chunk, and what the objective's gradients get from it.

    Args:
      table_VD: this device's part of the vocabulary, whole rows.
      first: id of its first row.
      x_BCD, targets_BC, weights_BC: its part of the tokens; C is that of all below.
    """
    x_BCD, targets_BC, weights_BC = (
        collectives.gathered(x, split.inner, 1) for x in (x_BCD, targets_BC, weights_BC)
    )
    rows, length, width = x_BCD.shape
    # As matrices: XLA's products over two dimensions are slower on CPUs.
    x_MD, targets_M1, weights_M = (
        x_BCD.reshape(-1, width),
        targets_BC.reshape(-1, 1),
        weights_BC.ravel(),
    )
    cap = config.logit_softcap
    with matmul_precision(config):
        logits = jnp.einsum("MD,VD->MV", x_MD, table_VD, preferred_element_type=jnp.float32)
    if cap:
        logits = cap * jnp.tanh(logits / cap)
    ids = first + jnp.arange(table_VD.shape[0])
    if config.padded_vocab_size > config.vocab_size:
        logits = jnp.where(ids < config.vocab_size, logits, -jnp.inf)
    top_M = collectives.largest(jnp.max(logits, axis=-1), split.vocab)
    exps = jnp.exp(logits - top_M[:, None])
    total_M = collectives.total(jnp.sum(exps, axis=-1), split.vocab)
    log_z_M = top_M + jnp.log(total_M)
    # A comparison, not a look-up: it needs no scatter, and each device looks among its own ids.
    is_target = ids == targets_M1
    at_target_M = jnp.sum(jnp.where(is_target, logits, 0), axis=-1)
    at_target_M = collectives.total(at_target_M, split.vocab)

    def of_rows(x_M: jax.Array) -> jax.Array:
        return jnp.sum((x_M * weights_M).reshape(rows, length), axis=1)

    found = Losses(of_rows(log_z_M - at_target_M), of_rows(jnp.square(log_z_M)))
    if learn == "nothing":
        return found, None
    # d log Z / d logits is the softmax; the z-loss adds 2 log Z of that.
    of_softmax_M = weights_M * (1 + 2 * z_loss * log_z_M) / total_M
    slope = exps * of_softmax_M[:, None] - jnp.where(is_target, weights_M[:, None], 0)
    if cap:
        slope = jnp.where(jnp.isneginf(logits), 0, slope * (1 - jnp.square(logits / cap)))
    slope = slope.astype(x_BCD.dtype)
    with matmul_precision(config):
        grad_VD = None
        if learn == "both":
            grad_VD = jnp.einsum("MV,MD->VD", slope, x_MD, preferred_element_type=jnp.float32)
        grad_MD = jnp.einsum("MV,VD->MD", slope, table_VD, preferred_element_type=jnp.float32)
    grad_BCD = collectives.scattered(grad_MD.reshape(x_BCD.shape), split.inner, 1)
    grad_BCD = collectives.total(grad_BCD, tuple(a for a in split.vocab if a not in split.inner))
    return found, _Gradients(grad_VD, grad_BCD.astype(x_BCD.dtype))


def _chunks(length: int, n_bytes: int, most: int) -> int:
    """How many parts of the sequence, the last padded, have logits of at most `most` bytes each.

    A part has one token at least, and none is all padding.
    """
    tokens = max(1, length * most // n_bytes)
    return -(-length // tokens)


def _cut(chunks: int, a: jax.Array) -> jax.Array:
    """[B, T, ...] -> [chunks, B, T / chunks, ...]."""
    return a.reshape(a.shape[0], chunks, -1, *a.shape[2:]).swapaxes(0, 1)
