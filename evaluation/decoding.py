"""A model that was trained in stages, to decode with."""

import math
from collections.abc import Callable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model import parameters
from model.decoder import Decoder
from model.parameters import Params
from sharding.config import decoding_mesh
from sharding.layer_order import LayerOrder
from sharding.means import means
from sharding.mesh import reshaped
from training.state import abstract_params, shardings_of


def to_decode(
    model: Decoder, params: Params, mesh: Mesh, rounds: int
) -> tuple[Decoder, Params, Mesh]:
    """The same where there are no stages. A token would go through one after the other, and each
    would wait for all others: so the layers are laid over the devices as a checkpoint's are that is
    loaded to decode with.

    Args:
      model: an outline of the decoder.
      params: its parameters on `mesh`.
      mesh: of the training.
      rounds: of its microbatches.

    Returns:
      model, parameters and mesh to decode with.
    """
    if mesh.shape["pipeline"] == 1:
        return model, params, mesh
    config = model.config
    sizes = config.num_heads, *config.mlp_widths, config.padded_vocab_size
    to = reshaped(mesh, decoding_mesh(mesh.size, *sizes))
    outline = parameters.outline(config, means(to, config))
    params = LayerOrder(mesh, rounds, parameters.stacked(model)).by_depth(params)
    where = shardings_of(abstract_params(outline, to))

    return outline, jax.tree.map(lambda x, where: mover(x, where)(x), params, where), to


def mover(x: jax.Array, where: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    """The program that lays an array otherwise over the same devices.

    What splits other dimensions goes over to the one that is split at the end, dimension after
    dimension: all at once the compiler would not exchange parts, but lay the array whole on every
    device.

    Args:
      x: the array, on a mesh.
      where: how it shall lie, split along no more than one dimension.
    """
    before = x.sharding
    assert isinstance(before, NamedSharding)
    axes: list[tuple[str, ...]] = [()] * x.ndim
    for d, part in enumerate(before.spec):
        axes[d] = part if isinstance(part, tuple) else (part,) if part else ()
    steps = []
    for to in (d for d, part in enumerate(where.spec) if part):
        for d in (d for d in range(x.ndim) if d != to and axes[d]):
            joined = axes[to] + axes[d]
            if x.shape[to] % math.prod(before.mesh.shape[axis] for axis in joined) == 0:
                axes[to] = joined
            axes[d] = ()
            steps.append(NamedSharding(before.mesh, PartitionSpec(*axes)))

    def moved(x: jax.Array) -> jax.Array:
        for step in steps:
            x = jax.lax.with_sharding_constraint(x, step)
        return x

    return jax.jit(moved, out_shardings=where)
