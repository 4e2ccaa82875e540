"""The output projection with its loss: logits exist for a part of the sequence at a time.

What is computed of a chunk's logits is a measure that the loop is handed (training/objectives/).

Every device works on its own rows and its own part of the vocabulary (`shard_map`): the table is
gathered along `fsdp` once, before the loop over the parts, in the dtype that it is multiplied in;
its gradient is summed in float32 on each device and scattered once, after the loop. Where the
vocabulary is split, the features are too, along their length: inside the loop those of a part are
gathered and their gradient is scattered, beside numbers of [B, C].
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


class Chunk(NamedTuple):
    """What a measure sees of a chunk's tokens (M), on one device.

    Attributes:
      logits_MV: float32, of this device's part of the vocabulary; -inf past the vocabulary.
      ids_V: int32, which tokens these are.
      targets_M1: int32, ids to predict.
      weights_M: float32, what each counts.
      teacher_MV: another decoder's logits of the same tokens; None without one.
      beside: what else comes with each token: [M, ...].
      vocab: mesh axes that the vocabulary is split along.
    """

    logits_MV: jax.Array
    ids_V: jax.Array
    targets_M1: jax.Array
    weights_M: jax.Array
    teacher_MV: jax.Array | None
    beside: dict[str, jax.Array]
    vocab: Axes

    @property
    def is_target_MV(self) -> jax.Array:
        """A comparison, not a look-up: it needs no scatter, and each device looks among its own."""
        return self.ids_V == self.targets_M1


class Softmax(NamedTuple):
    """Of logits whose vocabulary is split.

    Attributes:
      exps_MV: exponentials of the logits, less the largest.
      total_M: their sum.
      log_z_M: the logarithm of the normalizer.
    """

    exps_MV: jax.Array
    total_M: jax.Array
    log_z_M: jax.Array


def softmax(logits_MV: jax.Array, vocab: Axes) -> Softmax:
    """Of each token, over the devices that have parts of the vocabulary."""
    top_M = collectives.largest(jnp.max(logits_MV, axis=-1), vocab)
    exps_MV = jnp.exp(logits_MV - top_M[:, None])
    total_M = collectives.total(jnp.sum(exps_MV, axis=-1), vocab)
    return Softmax(exps_MV, total_M, top_M + jnp.log(total_M))


def log_softmax(logits_MV: jax.Array, vocab: Axes) -> jax.Array:
    """The logarithms of a softmax's probabilities."""
    return logits_MV - softmax(logits_MV, vocab).log_z_M[:, None]


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


class Beside(NamedTuple):
    """What a measure sees beside the decoder's own: it has no gradient.

    Attributes:
      of_tokens: arrays [B, T, ...].
      table_VD, x_BTD: the output projection of a teacher, whose rows are of the same tokens as the
        decoder's, and its features; D is its own.
    """

    of_tokens: dict[str, jax.Array] = {}  # noqa: RUF012
    table_VD: jax.Array | None = None
    x_BTD: jax.Array | None = None


ALONE = Beside()


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


def of_tokens(
    config: ModelConfig,
    mesh: Mesh,
    function: Callable[[Chunk], Any],
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    beside: Beside = ALONE,
    teacher: ModelConfig | None = None,
) -> Any:
    """What a function makes of each token's logits: arrays [B, T, ...]. They have no gradient.

    Args:
      config, mesh, table_VD, x_BTD, targets_BT, beside: as of `losses`.
      function: of a chunk; every device has to come to the same for a token, [M, ...].
      teacher: the config of the decoder beside, where there is one.
    """
    split = _split(mesh, x_BTD)
    tokens: Any = PartitionSpec(split.batch, (*split.length, *split.inner))

    def on_device(
        table_VD: jax.Array, x_BTD: jax.Array, targets_BT: jax.Array, beside: Beside
    ) -> Any:
        tables = _tables(split, table_VD, x_BTD, beside)
        length = x_BTD.shape[1]
        weights_BT = jnp.ones(targets_BT.shape, jnp.float32)
        of_all = x_BTD, targets_BT, weights_BT, beside._replace(table_VD=None)
        parts = _parts(config, split, len(tables), tables[0], of_all)

        def one(_: None, part: tuple[Any, ...]) -> tuple[None, Any]:
            rows, here = part[1].shape
            found = function(_seen(config, split, teacher, tables, *part)[0])

            def own(y: jax.Array) -> jax.Array:
                y = y.reshape(rows, -1, *y.shape[1:])
                first = collectives.index(split.inner) * here
                return jax.lax.dynamic_slice_in_dim(y, first, here, axis=1)

            return None, jax.tree.map(own, found)

        _, found = jax.lax.scan(one, None, parts)
        return jax.tree.map(lambda y: _joined(y)[:, :length], found)

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(_of_table(mesh, table_VD), tokens, tokens, _of_beside(mesh, beside, tokens)),
        out_specs=tokens,
        check_vma=False,  # every device has the same of a token
    )(table_VD, x_BTD, targets_BT, beside)


def _of_table(mesh: Mesh, table_VD: jax.Array) -> Any:
    return sharding(mesh, ("vocab", "embed"), table_VD.shape).spec


def _of_beside(mesh: Mesh, beside: Beside, tokens: Any) -> Any:
    if beside.table_VD is None:
        return Beside(tokens, None, None)
    return Beside(tokens, _of_table(mesh, beside.table_VD), tokens)


def _tables(
    split: _Split, table_VD: jax.Array, x_BTD: jax.Array, beside: Beside
) -> tuple[jax.Array, ...]:
    """This device's part of the vocabulary, whole rows: the decoder's table, and a teacher's."""
    tables = [table_VD.astype(x_BTD.dtype)]
    if beside.table_VD is not None and beside.x_BTD is not None:
        tables.append(beside.table_VD.astype(beside.x_BTD.dtype))
    return tuple(collectives.gathered(one, split.embed, 1) for one in tables)


def _split(mesh: Mesh, x_BTD: jax.Array) -> _Split:
    length = mesh_axes(mesh, "length", x_BTD.shape[1])
    whole = mesh_axes(mesh, "head_length", x_BTD.shape[1])
    return _Split(
        batch=mesh_axes(mesh, "batch", None),
        length=length,
        inner=tuple(axis for axis in whole if axis not in length),
        embed=mesh_axes(mesh, "embed", None),
        vocab=mesh_axes(mesh, "vocab", None),
    )


def _summed(
    config: ModelConfig, mesh: Mesh, measure: Measure, learn: Learn, *arrays: Any
) -> tuple[tuple[jax.Array, Any], Any]:
    """`_on_device` on every device; its second result is `Gradients`, or None if not to learn."""
    *own, beside = arrays
    table = _of_table(mesh, own[0])
    split = _split(mesh, own[1])
    alone: Any = PartitionSpec()
    rows: Any = PartitionSpec(split.batch)
    tokens: Any = PartitionSpec(split.batch, mesh_axes(mesh, "head_length", own[1].shape[1]))
    work: Callable[..., Any] = functools.partial(_on_device, config, split, measure, learn)
    both = Gradients(table, tokens)
    gradients = {"nothing": None, "features": both._replace(table=None), "both": both}[learn]
    return jax.shard_map(
        work,
        mesh=mesh,
        in_specs=(table, tokens, tokens, tokens, _of_beside(mesh, beside, tokens)),
        out_specs=((alone, rows), gradients),
        check_vma=False,  # _on_device says what is summed over which axes
    )(*own, beside)


def _on_device(
    config: ModelConfig,
    split: _Split,
    measure: Measure,
    learn: Learn,
    table_VD: jax.Array,
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    beside: Beside,
) -> tuple[tuple[jax.Array, Any], Gradients | None]:
    """The loss of this device's part of the rows; `table_VD` is its part of the table.

    The tokens are its part too of those that it computes the loss of (see `_Split`).
    """
    tables = _tables(split, table_VD, x_BTD, beside)
    table_VD = tables[0]
    rows, length, _ = x_BTD.shape
    of_all = x_BTD, targets_BT, weights_BT, beside._replace(table_VD=None)
    parts = _parts(config, split, len(tables), table_VD, of_all)
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
    grad_BTD = _joined(grads)[:, :length]
    gradients = Gradients(grad_VD, grad_BTD)
    # The backward pass waits until the table's gradient is scattered: the compiler would keep it
    # whole to the end of the step.
    gradients = jax.lax.optimization_barrier(gradients)
    return result(total), gradients


def _parts(config: ModelConfig, split: _Split, like: int, table_VD: jax.Array, arrays: Any) -> Any:
    """The arrays [B, T, ...] of a tree in chunks, [chunks, B, C, ...].

    Args:
      like: how many logits there are of each token and id.
    """
    first = jax.tree.leaves(arrays)[0]
    rows, length = first.shape[:2]
    tokens = rows * length * collectives.size(split.inner)
    # Of each its logits here, and its features where they are gathered: stages have few logits.
    numbers = max(like * table_VD.shape[0], table_VD.shape[1] if split.inner else 0)
    chunks = _chunks(length, 4 * tokens * numbers, config.logits_mb << 20)
    padding = -length % chunks  # with weight zero
    return jax.tree.map(
        lambda a: _cut(chunks, jnp.pad(a, ((0, 0), (0, padding), *((0, 0),) * (a.ndim - 2)))),
        arrays,
    )


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


def _seen(
    config: ModelConfig,
    split: _Split,
    teacher: ModelConfig | None,
    tables: tuple[jax.Array, ...],
    x_BCD: jax.Array,
    targets_BC: jax.Array,
    weights_BC: jax.Array,
    beside: Beside,
) -> tuple[Chunk, jax.Array]:
    """What is seen of a chunk, and its features [M, D]; the arguments are those of `_chunk`."""
    x_BCD, targets_BC, weights_BC, beside = jax.tree.map(
        lambda x: collectives.gathered(x, split.inner, 1), (x_BCD, targets_BC, weights_BC, beside)
    )

    def flat(x: jax.Array) -> jax.Array:  # XLA's products over two dimensions are slower on CPUs
        return x.reshape(-1, *x.shape[2:])

    x_MD = flat(x_BCD)
    logits = _logits(config, tables[0], split, x_MD)
    theirs = None
    if teacher is not None and beside.x_BTD is not None:
        theirs = _logits(teacher, tables[1], split, flat(beside.x_BTD))
    chunk = Chunk(
        logits,
        _ids(tables[0], split),
        flat(targets_BC)[:, None],
        flat(weights_BC),
        theirs,
        {name: flat(x) for name, x in beside.of_tokens.items()},
        split.vocab,
    )
    return chunk, x_MD


def _chunk(
    config: ModelConfig,
    split: _Split,
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
      tables: see `_tables`.
      x_BCD, targets_BC, weights_BC, beside: its part of the tokens; C is that of all below.
    """
    part = x_BCD, targets_BC, weights_BC, beside
    chunk, x_MD = _seen(config, split, measure.teacher, tables, *part)
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


def _ids(table_VD: jax.Array, split: _Split) -> jax.Array:
    """Of the rows of this device's part of a table."""
    return collectives.index(split.vocab) * table_VD.shape[0] + jnp.arange(table_VD.shape[0])


def _logits(config: ModelConfig, table_VD: jax.Array, split: _Split, x_MD: jax.Array) -> jax.Array:
    """Those of this device's part of the vocabulary: [M, V], float32, -inf past the vocabulary."""
    cap = config.logit_softcap
    with matmul_precision(config):
        logits = jnp.einsum("MD,VD->MV", x_MD, table_VD, preferred_element_type=jnp.float32)
    if cap:
        logits = cap * jnp.tanh(logits / cap)
    if config.padded_vocab_size > config.vocab_size:
        logits = jnp.where(_ids(table_VD, split) < config.vocab_size, logits, -jnp.inf)
    return logits


def _chunks(length: int, n_bytes: int, most: int) -> int:
    """How many parts of the sequence, the last padded, have logits of at most `most` bytes each.

    A part has one token at least, and none is all padding.
    """
    tokens = max(1, length * most // n_bytes)
    return -(-length // tokens)


def _cut(chunks: int, a: jax.Array) -> jax.Array:
    """[B, T, ...] -> [chunks, B, T / chunks, ...]."""
    return a.reshape(a.shape[0], chunks, -1, *a.shape[2:]).swapaxes(0, 1)


def _joined(a: jax.Array) -> jax.Array:
    """[chunks, B, C, ...] -> [B, chunks C, ...]."""
    a = a.swapaxes(0, 1)
    return a.reshape(a.shape[0], -1, *a.shape[3:])
