"""The one table that maps logical axes to mesh axes, and its validation."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TABLE: Mapping[str, tuple[str, ...]] = {
    # parameters
    "layers": ("pipeline",),
    "vocab": ("tensor", "pipeline"),
    "embed": ("fsdp", "expert", "context"),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "position": (),
    "norm": (),
    "rank": (),
    "adapter": (),
    "latent": ("fsdp", "expert", "context"),
    "experts": ("expert",),
    "expert_embed": ("fsdp", "context"),
    "router": (),
    "stages": ("pipeline",),
    # activations; between blocks, where nothing looks along the length, it is split once more, and
    # after the last of them along all that splits the vocabulary
    "batch": ("data", "fsdp", "expert"),
    "length": ("context",),
    "act_length": ("context", "tensor"),
    "head_length": ("context", "tensor", "pipeline"),
    "act_embed": (),
    # what is done to each of many arrays apart
    "stack": ("pipeline", "fsdp", "expert", "context", "tensor"),
    "whole": (),
}


IF_DIVIDED = frozenset({"kv_heads", "batch", "length", "act_length", "head_length"})
"""Axes that are split only as far as their mesh axes divide them, and whole on the others.

Key-value heads, where `tensor` is larger than their number or does not divide it: the query heads
stay split (`validate` says it). The one row, and the one token, of a batch that is being decoded:
see `generate.py` (for training and evaluation, `validate` refuses what is not divided).
"""

ALONG_ALL = frozenset({"position", "norm", "router", "adapter"})
"""A parameter with one of these axes may lie whole on every device along a mesh axis."""

SPLIT_PARAMETERS = ("fsdp", "tensor", "expert", "pipeline")
"""Mesh axes along which no large parameter may lie whole: along `data`, that is the meaning."""

FOR = {"expert": "experts"}
"""Mesh axes that are for one logical axis: without it, `fsdp` does what they would."""

_LARGE = 1 << 24  # elements, 64 MB in float32: more than the biases of any layer stack known to us


class ShardingError(ValueError):
    """A layout that cannot be, or that would do nothing: names tensor, axis and remedy."""


def ways(mesh: Mesh, name: str) -> int:
    """In how many parts the table splits a dimension of this name."""
    return math.prod(mesh.shape[axis] for axis in TABLE[name])


def mesh_axes(mesh: Mesh, name: str, size: int | None) -> tuple[str, ...]:
    """Along which mesh axes of more than one device a dimension lies: those of its row of the
    table, or the first of them (see IF_DIVIDED).

    Args:
      mesh: the mesh.
      name: the logical axis.
      size: of the dimension; None of a batch that `validate` has seen.
    """
    axes = tuple(axis for axis in TABLE[name] if mesh.shape[axis] > 1)
    if name in IF_DIVIDED and size is not None:
        while size % math.prod(mesh.shape[axis] for axis in axes):
            axes = axes[:-1]
    return axes


def sharding(
    mesh: Mesh, axes: tuple[str, ...], shape: tuple[int, ...] | None = None
) -> NamedSharding:
    """Where a tensor with these logical axes lies.

    Args:
      mesh: the mesh.
      axes: the logical axes.
      shape: of the tensor; None of rows of a batch that `validate` has seen, and of scalars.
    """
    assert shape is not None or set(axes) <= {"batch"}, axes
    sizes = shape if shape is not None else (None,) * len(axes)
    parts = (mesh_axes(mesh, *pair) for pair in zip(axes, sizes, strict=True))
    return NamedSharding(mesh, PartitionSpec(*(p if len(p) != 1 else p[0] for p in parts)))


def placed(mesh: Mesh, axes: Any, shapes: Any) -> Any:
    """Shape, dtype and sharding (ShapeDtypeStruct) of every leaf of a tree.

    Args:
      mesh: the mesh.
      axes: tree of logical axes.
      shapes: tree of the same form of arrays or ShapeDtypeStructs.
    """

    def place(names: tuple[str, ...], leaf: Any) -> jax.ShapeDtypeStruct:
        where = sharding(mesh, names, leaf.shape)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(place, axes, shapes, is_leaf=lambda a: isinstance(a, tuple))


def validate(
    mesh: Mesh,
    axes: Any,
    shapes: Any,
    batches: Mapping[str, int],
    lengths: Mapping[str, int] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Proves, before anything is compiled, that the mesh splits what it says it splits.

    Args:
      mesh: the mesh.
      axes: tree of logical axes of the parameters.
      shapes: tree of the same form of arrays or ShapeDtypeStructs.
      batches: rows that go through the model at once, over all devices, by what sets them. With
        none (decoding), the mesh axis `data` holds copies of everything, as it may.
      lengths: tokens of their rows, by what sets them.

    Returns:
      what a person should know, a line each: which dimension lies whole on every device although
      the table has mesh axes for it.

    Raises:
      ShardingError: a dimension that its mesh axes do not divide; a mesh axis of more than one
        device that splits nothing, or not what it is for; or a large parameter that lies whole on
        every device along an axis that should split it.
    """
    leaves = jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda a: isinstance(a, tuple))[0]
    tensors = [
        (".".join(str(key.key) for key in path), names, leaf.shape)
        for (path, names), leaf in zip(leaves, jax.tree.leaves(shapes), strict=True)
    ]
    used: set[str] = set()
    whole: dict[str, int] = {}
    for tensor, names, shape in tensors:
        along: set[str] = set()
        for name, size in zip(names, shape, strict=True):
            if mesh_axes(mesh, name, size) != mesh_axes(mesh, name, None):
                whole[name] = size
            else:
                _check_divides(mesh, tensor, name, size)
                used.update(TABLE[name])
            along.update(TABLE[name])
        if math.prod(shape) >= _LARGE and not ALONG_ALL & set(names):
            for axis in SPLIT_PARAMETERS:
                if mesh.shape[axis] > 1 and axis not in along:
                    raise ShardingError(
                        f"{tensor} {shape} lies whole on each of the {mesh.shape[axis]} devices "
                        f"along {axis}; give one of its axes {', '.join(names)} a row in "
                        f"sharding/table.py, or set mesh.{axis}=1"
                    )
    for source, rows in batches.items():
        _check_divides(mesh, source, "batch", rows)
        used.update(TABLE["batch"])
    for source, length in lengths.items():
        chunks = 2 * mesh.shape["context"]  # of sharding/order.py
        if chunks > 2 and length % chunks:
            raise ShardingError(
                f"mesh.context={chunks // 2} cuts a row into {chunks} chunks, which do not divide "
                f"{source}={length}; make that a multiple of {chunks}, or set mesh.context=1"
            )
        used.update(TABLE["length"])
        if mesh_axes(mesh, "act_length", length) != mesh_axes(mesh, "act_length", None):
            whole["act_length"] = length
    names = {name for _, names, _ in tensors for name in names}
    used -= {axis for axis, name in FOR.items() if name not in names}
    for axis, size in mesh.shape.items():
        if size > 1 and axis not in used and (batches or axis != "data"):
            what = f": the model has no {FOR[axis]}" if axis in FOR else " would shard nothing"
            raise ShardingError(f"mesh.{axis}={size}{what}; set it to 1")
    return tuple(
        f"{size} {name} are not divided by {_over(mesh, name)}: each of its devices has all of them"
        for name, size in whole.items()
    )


def _over(mesh: Mesh, name: str) -> str:
    return " x ".join(f"{a}={mesh.shape[a]}" for a in TABLE[name] if mesh.shape[a] > 1)


def _check_divides(mesh: Mesh, tensor: str, name: str, size: int) -> None:
    if size % ways(mesh, name):
        raise ShardingError(
            f"mesh {_over(mesh, name)} does not divide {size}, the {name} dimension of {tensor}; "
            f"choose mesh sizes whose product divides {size}"
        )
