"""Logits, of which those of a chunk of the sequence exist at a time, and what a chunk is.

Every device works on its own rows and its own part of the vocabulary (`shard_map`): the table is
gathered along `fsdp` once, before the loop over the chunks, in the dtype that it is multiplied in.
Where the vocabulary is split, the features are too, along their length: inside the loop those of a
chunk are gathered, beside numbers of [B, C].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from model.config import ModelConfig
from model.layers import matmul_precision
from sharding import collectives
from sharding.collectives import Axes
from sharding.table import mesh_axes, sharding


class Split(NamedTuple):
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
      config, mesh, table_VD, x_BTD, targets_BT, beside: as of `head.losses`.
      function: of a chunk; every device has to come to the same for a token, [M, ...].
      teacher: the config of the decoder beside, where there is one.
    """
    split = split_of(mesh, x_BTD)
    tokens: Any = PartitionSpec(split.batch, (*split.length, *split.inner))

    def on_device(
        table_VD: jax.Array, x_BTD: jax.Array, targets_BT: jax.Array, beside: Beside
    ) -> Any:
        tables = tables_of(split, table_VD, x_BTD, beside)
        length = x_BTD.shape[1]
        weights_BT = jnp.ones(targets_BT.shape, jnp.float32)
        of_all = x_BTD, targets_BT, weights_BT, beside._replace(table_VD=None)
        parts = in_parts(config, split, len(tables), tables[0], of_all)

        def one(_: None, part: tuple[Any, ...]) -> tuple[None, Any]:
            rows, here = part[1].shape
            found = function(seen(config, split, teacher, tables, *part)[0])

            def own(y: jax.Array) -> jax.Array:
                y = y.reshape(rows, -1, *y.shape[1:])
                first = collectives.index(split.inner) * here
                return jax.lax.dynamic_slice_in_dim(y, first, here, axis=1)

            return None, jax.tree.map(own, found)

        _, found = jax.lax.scan(one, None, parts)
        return jax.tree.map(lambda y: joined(y)[:, :length], found)

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(of_table(mesh, table_VD), tokens, tokens, of_beside(mesh, beside, tokens)),
        out_specs=tokens,
        check_vma=False,  # every device has the same of a token
    )(table_VD, x_BTD, targets_BT, beside)


def of_table(mesh: Mesh, table_VD: jax.Array) -> Any:
    """How a table lies on the devices of a mesh, as a PartitionSpec."""
    return sharding(mesh, ("vocab", "embed"), table_VD.shape).spec


def of_beside(mesh: Mesh, beside: Beside, tokens: Any) -> Any:
    """Likewise of what is beside, where arrays of tokens lie as `tokens` says."""
    if beside.table_VD is None:
        return Beside(tokens, None, None)
    return Beside(tokens, of_table(mesh, beside.table_VD), tokens)


def tables_of(
    split: Split, table_VD: jax.Array, x_BTD: jax.Array, beside: Beside
) -> tuple[jax.Array, ...]:
    """This device's part of the vocabulary, whole rows: the decoder's table, and a teacher's."""
    tables = [table_VD.astype(x_BTD.dtype)]
    if beside.table_VD is not None and beside.x_BTD is not None:
        tables.append(beside.table_VD.astype(beside.x_BTD.dtype))
    return tuple(collectives.gathered(one, split.embed, 1) for one in tables)


def split_of(mesh: Mesh, x_BTD: jax.Array) -> Split:
    """What a mesh splits of the output projection of these features."""
    length = mesh_axes(mesh, "length", x_BTD.shape[1])
    whole = mesh_axes(mesh, "head_length", x_BTD.shape[1])
    return Split(
        batch=mesh_axes(mesh, "batch", None),
        length=length,
        inner=tuple(axis for axis in whole if axis not in length),
        embed=mesh_axes(mesh, "embed", None),
        vocab=mesh_axes(mesh, "vocab", None),
    )


def in_parts(config: ModelConfig, split: Split, like: int, table_VD: jax.Array, arrays: Any) -> Any:
    """The arrays [B, T, ...] of a tree in chunks, [chunks, B, C, ...].

    Args:
      config: of the decoder.
      split: of the mesh.
      like: how many logits there are of each token and id.
      table_VD: this device's part of the table.
      arrays: the tree.
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


def seen(
    config: ModelConfig,
    split: Split,
    teacher: ModelConfig | None,
    tables: tuple[jax.Array, ...],
    x_BCD: jax.Array,
    targets_BC: jax.Array,
    weights_BC: jax.Array,
    beside: Beside,
) -> tuple[Chunk, jax.Array]:
    """What is seen of a chunk, and its features [M, D].

    Args:
      config: of the decoder.
      split: of the mesh.
      teacher: the config of the decoder beside, where there is one.
      tables: from `tables_of`.
      x_BCD, targets_BC, weights_BC, beside: this device's part of the chunk's tokens.
    """
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


def _ids(table_VD: jax.Array, split: Split) -> jax.Array:
    """Of the rows of this device's part of a table."""
    return collectives.index(split.vocab) * table_VD.shape[0] + jnp.arange(table_VD.shape[0])


def _logits(config: ModelConfig, table_VD: jax.Array, split: Split, x_MD: jax.Array) -> jax.Array:
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


def joined(a: jax.Array) -> jax.Array:
    """[chunks, B, C, ...] -> [B, chunks C, ...]."""
    a = a.swapaxes(0, 1)
    return a.reshape(a.shape[0], -1, *a.shape[3:])
