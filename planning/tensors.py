"""What a device holds from step to step, tensor by tensor, to the byte."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from model import parameters
from training.config import RunConfig
from training.optimizer import make_optimizer
from training.state import abstract_fixed, abstract_state
from training.tuning import moving


class Tensor(NamedTuple):
    """Attributes:
    kind: "parameters" (those that move), "optimizer" or "fixed".
    name: dotted.
    shape, dtype: of the whole.
    axes: logical axes, one a dimension; empty where nothing is known of them.
    mesh_axes: those that split each dimension.
    bytes: on a device.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    mesh_axes: tuple[tuple[str, ...], ...]
    bytes: int


def state_tensors(config: RunConfig, mesh: Mesh) -> list[Tensor]:
    """Every parameter of a run, those that move first, and everything that its optimizer keeps.

    Args:
      config: of a run whose vocabulary is known.
      mesh: an abstract one will do.
    """
    outline = parameters.outline(config.model)
    moves = moving(config.tuning, outline)
    tx = make_optimizer(config.optimizer, config.train.steps, outline, mesh, moves)
    state = abstract_state(tx, outline, mesh, moves)
    axes = {
        _name(path): names
        for path, names in jax.tree_util.tree_flatten_with_path(
            parameters.logical_axes(outline), is_leaf=lambda a: isinstance(a, tuple)
        )[0]
    }
    return [
        *_tensors("parameters", state.params, axes),
        *_tensors("optimizer", state.opt_state, axes),
        *_tensors("fixed", abstract_fixed(outline, mesh, moves), axes),
    ]


def total(tensors: Iterable[Tensor], kind: str) -> int:
    """Bytes on a device of all tensors of a kind."""
    return sum(tensor.bytes for tensor in tensors if tensor.kind == kind)


def _tensors(kind: str, tree: Any, axes: dict[str, tuple[str, ...]]) -> Iterator[Tensor]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = _name(path)
        of = next((names for end, names in axes.items() if f".{name}".endswith(f".{end}")), ())
        spec = (*leaf.sharding.spec, *((),) * leaf.ndim)[: leaf.ndim]
        split = tuple(() if s is None else (s,) if isinstance(s, str) else tuple(s) for s in spec)
        size = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        of = of if len(of) == leaf.ndim else ()
        yield Tensor(kind, name, leaf.shape, str(leaf.dtype), of, split, size)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
