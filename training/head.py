"""The output projection with its loss, and their gradient: a loop over the chunks of chunks.py.

What is computed of a chunk's logits is a measure that the loop is handed (training/objectives/).
The gradient of the table is summed in float32 on each device and scattered once, after the loop;
that of a chunk's features is scattered inside it, where the vocabulary is split.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from model.config import ModelConfig
from model.layers import matmul_precision
from sharding import collectives
from sharding.table import mesh_axes
from training import chunks
from training.chunks import ALONE, Beside, Chunk, Split


class Measure(Protocol):
    """What is summed up and minimised of a chunk's logits: hashable, and equal to its like.

    Attributes:
      teacher: the config of the decoder whose logits it sees, too; None of none.
      sums: a NamedTuple class, of what is summed up.
    """

    @property
    def teacher(self) -> ModelConfig | None: ...

    @property
    def sums(self) -> Any: ...

    def objective(self, sums: Any) -> jax.Array:
        """What is minimised, from `sums` of float32 scalars: linear in them."""

    def __call__(self, chunk: Chunk, learn: bool) -> tuple[Any, jax.Array | None]:
        """Of each token the terms of `sums`, [M] without its weight; and, where there is to learn,
        the gradient of the objective in the logits, [M, V] with it.
        """


Learn = Literal["nothing", "features", "both"]
"""What of a chunk there are gradients of: features alone where the table stays as it is."""


class Gradients(NamedTuple):
    """Of the objective: in the table, [V, D] float32, or None; and in the features, [B, T, D]."""

    table: jax.Array | None
    features: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def losses(
    config: ModelConfig,
    mesh: Mesh,
    measure: Measure,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    beside: Beside = ALONE,
) -> tuple[jax.Array, Any]:
    """What a measure sums up of each row, [B] float32, and its objective of the sums of all rows.

    The gradient is computed beside the loss, while a chunk's logits are at hand, so nothing is
    computed twice. Only the objective has one.

    Args:
      config: of the decoder.
      mesh: of all arrays.
      measure: what is summed up.
      table_VD: float32, or in the features' dtype.
      x_BTD: features, in the dtype that matrices are multiplied in.
      targets_BT, weights_BT: ids to predict, and 1 where they count.
      beside: what the measure is shown, too.
    """
    arrays = table_VD, x_BTD, targets_BT, weights_BT, beside
    return _summed(config, mesh, measure, "nothing", *arrays)[0]


def _forward(
    config: ModelConfig, mesh: Mesh, measure: Measure, *arrays: Any
) -> tuple[tuple[jax.Array, Any], Gradients]:
    # What is not differentiated with respect to a table that stays as it is computes no gradient.
    learn: Learn = "both" if arrays[0].perturbed else "features"
    return _summed(config, mesh, measure, learn, *jax.tree.map(lambda a: a.value, arrays))


def _backward(
    config: ModelConfig,
    mesh: Mesh,
    measure: Measure,
    gradients: Gradients,
    outer: tuple[jax.Array, Any],
) -> tuple[jax.Array | None, jax.Array, None, None, None]:
    table_VD, x_BTD = gradients
    of_table = None if table_VD is None else table_VD * outer[0]
    return of_table, x_BTD * outer[0].astype(x_BTD.dtype), None, None, None


losses.defvjp(_forward, _backward, symbolic_zeros=True)


def gradients(
    config: ModelConfig,
    mesh: Mesh,
    measure: Measure,
    learn: Learn,
    *arrays: Any,
    beside: Beside = ALONE,
) -> Gradients:
    """Those of the objective of `losses`, which has the same arguments but for `learn`."""
    found: Gradients = _summed(config, mesh, measure, learn, *arrays, beside)[1]
    return found


def _summed(
    config: ModelConfig, mesh: Mesh, measure: Measure, learn: Learn, *arrays: Any
) -> tuple[tuple[jax.Array, Any], Any]:
    """`_on_device` on every device; its second result is `Gradients`, or None if not to learn."""
    *own, beside = arrays
    table = chunks.of_table(mesh, own[0])
    split = chunks.split_of(mesh, own[1])
    alone: Any = PartitionSpec()
    rows: Any = PartitionSpec(split.batch)
    tokens: Any = PartitionSpec(split.batch, mesh_axes(mesh, "head_length", own[1].shape[1]))
    work: Callable[..., Any] = functools.partial(_on_device, config, split, measure, learn)
    both = Gradients(table, tokens)
    gradients = {"nothing": None, "features": both._replace(table=None), "both": both}[learn]
    return jax.shard_map(
        work,
        mesh=mesh,
        in_specs=(table, tokens, tokens, tokens, chunks.of_beside(mesh, beside, tokens)),
        out_specs=((alone, rows), gradients),
        check_vma=False,  # _on_device says what is summed over which axes
    )(*own, beside)


def _on_device(
    config: ModelConfig,
    split: Split,
    measure: Measure,
    learn: Learn,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    beside: Beside,
) -> tuple[tuple[jax.Array, Any], Gradients | None]:
    """The loss of this device's part of the rows; `table_VD` is its part of the table.

    The tokens are its part too of those that it computes the loss of (see `Split`).
    """
    tables = chunks.tables_of(split, table_VD, x_BTD, beside)
    table_VD = tables[0]
    rows, length, _ = x_BTD.shape
    of_all = x_BTD, targets_BT, weights_BT, beside._replace(table_VD=None)
    parts = chunks.in_parts(config, split, len(tables), table_VD, of_all)
    work = functools.partial(_chunk, config, split, measure, learn, tables)
    zeros = jnp.zeros(rows, jnp.float32)
    none = measure.sums(*(zeros for _ in measure.sums._fields))

    def result(total: Any) -> tuple[jax.Array, Any]:
        of_rows = measure.sums(*(collectives.total(one, split.length) for one in total))
        here = measure.objective(measure.sums(*(jnp.sum(one) for one in of_rows)))
        return collectives.total(here, split.batch), of_rows

    if learn == "nothing":

        def add(total: Any, chunk: tuple[Any, ...]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, work(*chunk)[0]), None

        total, _ = jax.lax.scan(add, none, parts)
        return result(total), None

    def add_both(
        carry: tuple[Any, jax.Array | None], chunk: tuple[Any, ...]
    ) -> tuple[tuple[Any, jax.Array | None], jax.Array]:
        found, gradients = work(*chunk)
        assert gradients is not None
        carry = jax.tree.map(jnp.add, carry, (found, gradients.table))
        return carry, gradients.features

    of_table = jnp.zeros(table_VD.shape, jnp.float32) if learn == "both" else None
    (total, grad_VD), grads = jax.lax.scan(add_both, (none, of_table), parts)
    if grad_VD is not None:
        grad_VD = _scattered(grad_VD, split.embed, config.logits_mb << 20)
        others = (*split.batch, *split.length)
        grad_VD = collectives.total(grad_VD, tuple(a for a in others if a not in split.embed))
    grad_BTD = chunks.joined(grads)[:, :length]
    gradients = Gradients(grad_VD, grad_BTD)
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
    split: Split,
    measure: Measure,
    learn: Learn,
    tables: tuple[jax.Array, ...],
    x_BCD: jax.Array,
    targets_BC: jax.Array,
    weights_BC: jax.Array,
    beside: Beside,
) -> tuple[Any, Gradients | None]:
    """What the measure sums up of a chunk, and what the objective's gradients get from it.

    Args:
      tables: see `chunks.tables_of`.
      x_BCD, targets_BC, weights_BC, beside: its part of the tokens; C is that of all below.
    """
    part = x_BCD, targets_BC, weights_BC, beside
    chunk, x_MD = chunks.seen(config, split, measure.teacher, tables, *part)
    table_VD, logits, weights_M = tables[0], chunk.logits_MV, chunk.weights_M
    rows, width = x_BCD.shape[0], x_BCD.shape[2]
    terms, slope = measure(chunk, learn != "nothing")

    def of_rows(x_M: jax.Array) -> jax.Array:
        return jnp.sum((x_M * weights_M).reshape(rows, -1), axis=1)

    found = measure.sums(*(of_rows(x_M) for x_M in terms))
    if slope is None:
        return found, None
    if cap := config.logit_softcap:
        slope = jnp.where(jnp.isneginf(logits), 0, slope * (1 - jnp.square(logits / cap)))
    slope = slope.astype(x_BCD.dtype)
    with matmul_precision(config):
        grad_VD = None
        if learn == "both":
            grad_VD = jnp.einsum("MV,MD->VD", slope, x_MD, preferred_element_type=jnp.float32)
        grad_MD = jnp.einsum("MV,VD->MD", slope, table_VD, preferred_element_type=jnp.float32)
    grad_BCD = collectives.scattered(grad_MD.reshape(rows, -1, width), split.inner, 1)
    grad_BCD = collectives.total(grad_BCD, tuple(a for a in split.vocab if a not in split.inner))
    return found, Gradients(grad_VD, grad_BCD.astype(x_BCD.dtype))
