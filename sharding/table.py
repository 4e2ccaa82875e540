"""The one table that maps logical axes to mesh axes, and its validation."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

TABLE: Mapping[str, tuple[str, ...]] = {
    # parameters
    "layers": (),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "position": (),
    "norm": (),
    # activations
    "batch": ("data", "fsdp"),
    "length": (),
    "act_embed": (),
}


class ShardingError(ValueError):
    """A layout that cannot be, or that would do nothing: names tensor, axis and remedy."""


def spec(axes: tuple[str, ...]) -> PartitionSpec:
    """The mesh axes of a tensor with these logical axes."""
    parts = (TABLE[axis] for axis in axes)
    return PartitionSpec(*(part if len(part) != 1 else part[0] for part in parts))


def sharding(mesh: Mesh, axes: tuple[str, ...]) -> NamedSharding:
    """Where a tensor with these logical axes lies."""
    return NamedSharding(mesh, spec(axes))


def tree_shardings(mesh: Mesh, axes: Any) -> Any:
    """`sharding` of every leaf of a tree of logical axes."""
    return jax.tree.map(lambda a: sharding(mesh, a), axes, is_leaf=lambda a: isinstance(a, tuple))


def validate(mesh: Mesh, axes: Any, shapes: Any, batches: Mapping[str, int]) -> None:
    """Proves, before anything is compiled, that the mesh splits what it says it splits.

    Args:
      mesh: the mesh.
      axes: tree of logical axes of the parameters.
      shapes: tree of the same form of arrays or ShapeDtypeStructs.
      batches: rows that go through the model at once, over all devices, by what sets them.

    Raises:
      ShardingError: a dimension that its mesh axes do not divide; or a mesh axis of more than
        one device that no parameter and no batch dimension uses.
    """
    leaves = jax.tree_util.tree_flatten_with_path(axes, is_leaf=lambda a: isinstance(a, tuple))[0]
    tensors = [
        (".".join(str(key.key) for key in path), names, leaf.shape)
        for (path, names), leaf in zip(leaves, jax.tree.leaves(shapes), strict=True)
    ]
    tensors += [(name, ("batch",), (rows,)) for name, rows in batches.items()]
    used: set[str] = set()
    for tensor, names, shape in tensors:
        for name, size in zip(names, shape, strict=True):
            ways = math.prod(mesh.shape[axis] for axis in TABLE[name])
            used.update(TABLE[name])
            if size % ways:
                over = " x ".join(f"{a}={mesh.shape[a]}" for a in TABLE[name] if mesh.shape[a] > 1)
                raise ShardingError(
                    f"mesh {over} does not divide {size}, the {name} dimension of {tensor}; "
                    f"choose mesh sizes whose product divides {size}"
                )
    for axis, size in mesh.shape.items():
        if size > 1 and axis not in used:
            raise ShardingError(f"mesh.{axis}={size} would shard nothing; set it to 1")
