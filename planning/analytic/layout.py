"""A run laid over its hardware: what each device has of every dimension.

Letters are those of model/__init__.py; here they count what one device has. B are the rows and T
their tokens that go through a layer at once (a microbatch; with stages, one of theirs), a the bytes
of a number in the dtype that matrices are multiplied in.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from errors import UserError
from model import parameters
from model.parameters import Params
from planning.chip import Torus
from planning.topology import Topology
from sharding.attention import Form, form
from sharding.config import AXES
from sharding.schedule import Schedule, schedule
from sharding.table import mesh_axes
from training.config import RunConfig
from training.optimizer import make_optimizer
from training.state import TrainState, abstract_fixed, abstract_state
from training.tuning import Moving, moving


class Parameter(NamedTuple):
    """A parameter, as it is exchanged.

    Attributes:
      name: dotted.
      axes: its logical axes.
      shape: of all of it.
      held: elements on a device.
      gathered: mesh axes along which it is gathered to be multiplied with: those that split both
        it and the tokens. (Experts stay where they are: tokens go to them.)
      whole: elements on a device when it is.
      summed: mesh axes that split the tokens and not it: its gradient is summed along them.
      moves: whether it has a gradient at all.
    """

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    held: int
    gathered: tuple[str, ...]
    whole: int
    summed: tuple[str, ...]
    moves: bool = True

    @property
    def in_blocks(self) -> bool:
        return self.axes[0] == "layers"


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """See the module. `of` makes one.

    Attributes:
      run: its model must have its vocabulary.
      topology: what it runs on.
      sizes: of each mesh axis.
    """

    run: RunConfig
    topology: Topology
    sizes: Mapping[str, int]

    @functools.cached_property
    def mesh(self) -> AbstractMesh:
        """The mesh, without devices: shardings follow from it, arrays cannot be made."""
        sizes = tuple(self.sizes[axis] for axis in AXES)
        return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))

    def ways(self, name: str, size: int | None = None) -> int:
        """In how many parts the table splits a dimension of this logical axis and size."""
        axes = mesh_axes(self.mesh, name, size)  # type: ignore[arg-type]  # of a mesh it reads sizes
        return math.prod(self.sizes[axis] for axis in axes)

    @property
    def microbatches(self) -> int:
        return self.run.train.accumulation

    @property
    def all_rows(self) -> int:
        """Those of a microbatch of train.accumulation."""
        rows = self.run.train.batch_size // self.microbatches
        return max(rows // self.ways("batch", rows), 1)

    @functools.cached_property
    def stages(self) -> Schedule:
        """How they go through the layers."""
        if self.sizes["pipeline"] == 1:
            return Schedule(1, 1, 1)
        rows = self.run.train.batch_size // self.microbatches
        return schedule(self.mesh, self.run.mesh, rows)  # type: ignore[arg-type]

    @property
    def rows(self) -> int:
        """B."""
        return self.all_rows // self.stages.microbatches

    @property
    def kept(self) -> int:
        """How often a layer is called before the backward pass, over all that a device has; stages
        also call theirs when they have nothing to do."""
        return self.layers // self.stages.rounds * self.stages.iterations

    @property
    def calls(self) -> int:
        """n: how often in a step."""
        return self.kept * self.microbatches

    @property
    def length(self) -> int:
        """T, where attention needs the rows whole (but for `context`)."""
        length = self.run.data.sequence_length
        return length // self.ways("length", length)

    @property
    def between(self) -> int:
        """T between the blocks, where nothing looks along the length."""
        length = self.run.data.sequence_length
        return length // self.ways("act_length", length)

    @property
    def outside(self) -> int:
        """T after the last block, where what splits the vocabulary splits the length too."""
        length = self.run.data.sequence_length
        return length // self.ways("head_length", length)

    @property
    def numbers(self) -> int:
        """Of a token in the head: its logits, or its features where they are gathered if more."""
        return max(self.vocab, self.run.model.embed_dim if self.outside < self.length else 0)

    @property
    def layers(self) -> int:
        """L."""
        return self.run.model.num_layers // self.ways("layers", self.run.model.num_layers)

    @property
    def heads(self) -> int:
        """N."""
        return self.run.model.num_heads // self.ways("heads", self.run.model.num_heads)

    @property
    def kv_heads(self) -> int:
        """K."""
        return self.run.model.num_kv_heads // self.ways("kv_heads", self.run.model.num_kv_heads)

    @property
    def keys(self) -> int:
        """Key-value heads that attention works with: where K of all devices have them whole, one
        for its query heads, or one each (sharding/attention.py)."""
        model = self.run.model
        if self.ways("heads") == self.ways("kv_heads", model.num_kv_heads):
            return self.kv_heads
        return 1 if (model.num_heads // model.num_kv_heads) % self.heads == 0 else self.heads

    @property
    def context_form(self) -> Form:
        """How attention comes by its keys."""
        chip = self.topology.chip
        platform = "cpu" if chip is None else "tpu" if isinstance(chip.links, Torus) else "gpu"
        mesh = self.run.mesh
        return form(platform, self.sizes["context"], self.run.model, mesh.context_attention)

    @property
    def hidden(self) -> float:
        """F, of all that a token goes through in a layer, on the mean of layers."""
        return self._mean_of_layers(self.experts_hidden + self._shared_hidden, self._dense_hidden)

    @property
    def own_hidden(self) -> float:
        """F without experts that tokens travel to: what is computed where a token is."""
        routed = 0.0 if self.sizes["expert"] > 1 else self.experts_hidden
        return self._mean_of_layers(routed + self._shared_hidden, self._dense_hidden)

    @property
    def experts_hidden(self) -> float:
        """F of the experts that a token chooses, together."""
        moe = self.run.model.moe
        width = moe.experts_per_token * moe.expert_mlp_dim if moe.num_experts else 0
        return width / self.ways("mlp", moe.expert_mlp_dim)

    @property
    def expert_layers(self) -> float:
        """Layers of a device that have experts."""
        model = self.run.model
        return self.layers * (1 - model.dense_layers / model.num_layers)

    @property
    def _shared_hidden(self) -> float:
        moe = self.run.model.moe
        width = moe.shared_experts * moe.expert_mlp_dim if moe.num_experts else 0
        return width / self.ways("mlp", moe.expert_mlp_dim)

    @property
    def _dense_hidden(self) -> float:
        return self.run.model.mlp_dim / self.ways("mlp", self.run.model.mlp_dim)

    def _mean_of_layers(self, with_experts: float, dense: float) -> float:
        model = self.run.model
        of_dense = model.dense_layers / model.num_layers
        return dense * of_dense + with_experts * (1 - of_dense)

    @property
    def vocab(self) -> int:
        """V."""
        vocab = self.run.model.padded_vocab_size
        return vocab // self.ways("vocab", vocab)

    @property
    def itemsize(self) -> int:
        """a."""
        return int(jnp.dtype(self.run.model.dtype).itemsize)

    @property
    def tokens(self) -> int:
        """Of a step, over all devices."""
        return self.run.train.batch_size * self.run.data.sequence_length

    @functools.cached_property
    def state(self) -> TrainState:
        """Shapes, dtypes and shardings of what training carries from step to step."""
        outline = _outline(self.run.model)
        optimizer, steps = self.run.optimizer, self.run.train.steps
        mesh, moves = self.mesh, self.moving
        tx = make_optimizer(optimizer, steps, outline, mesh, moves)  # type: ignore[arg-type]
        return abstract_state(tx, outline, mesh, moves)  # type: ignore[arg-type]

    @functools.cached_property
    def fixed(self) -> Params:
        """Likewise, of the parameters that it only reads."""
        outline = _outline(self.run.model)
        return abstract_fixed(outline, self.mesh, self.moving)  # type: ignore[arg-type]

    @functools.cached_property
    def moving(self) -> Moving:
        """What of the parameters moves."""
        return moving(self.run.tuning, _outline(self.run.model))

    @property
    def head_learns(self) -> bool:
        """Whether the output projection's table moves."""
        return self.learns("embedding" if self.run.model.tie_embeddings else "unembedding")

    def learns(self, name: str) -> bool:
        """Whether a weight of that name moves."""
        return any(p.moves for p in self.parameters if p.name.rpartition(".")[2] == name)

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        outline = _outline(self.run.model)
        axes = jax.tree_util.tree_flatten_with_path(
            parameters.logical_axes(outline), is_leaf=lambda a: isinstance(a, tuple)
        )[0]
        shapes = [tuple(leaf.shape) for leaf in jax.tree.leaves(parameters.shapes(outline))]
        return tuple(
            self._parameter(".".join(str(key.key) for key in path), names, shape)
            for (path, names), shape in zip(axes, shapes, strict=True)
        )

    def _parameter(self, name: str, axes: tuple[str, ...], shape: tuple[int, ...]) -> Parameter:
        split = {
            axis: named
            for named, size in zip(axes, shape, strict=True)
            for axis in mesh_axes(self.mesh, named, size)  # type: ignore[arg-type]
        }
        of_tokens = [
            axis
            for named in ("batch", "length")
            for axis in mesh_axes(self.mesh, named, None)  # type: ignore[arg-type]
        ]
        gathered = tuple(a for a in of_tokens if a in split and split[a] != "experts")
        held = math.prod(shape) // math.prod(self.sizes[axis] for axis in split)
        return Parameter(
            name,
            axes,
            shape,
            held,
            gathered,
            held * math.prod(self.sizes[axis] for axis in gathered),
            tuple(a for a in of_tokens if a not in split),
            self.moving.names is None or name in self.moving.names,
        )


_outline = functools.lru_cache(maxsize=8)(parameters.outline)


def of(run: RunConfig, topology: Topology) -> Layout:
    """The layout of a run.

    Raises:
      UserError: the model's vocabulary is not known yet, or the mesh does not fit the devices.
    """
    if not run.model.vocab_size:
        raise UserError(
            "config.model.vocab_size=0: the tokenizer's, which is not known before the data is "
            "prepared: to plan, give --config.model.vocab_size=N"
        )
    try:
        sizes = run.mesh.sizes(topology.devices)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    return Layout(run, topology, sizes)
