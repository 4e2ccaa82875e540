"""A model that was trained in stages, to decode with."""

import jax
from jax.sharding import Mesh

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
    sizes = config.num_heads, config.mlp_dim, config.padded_vocab_size
    to = reshaped(mesh, decoding_mesh(mesh.size, *sizes))
    outline = parameters.outline(config, means(to, config))
    params = LayerOrder(mesh, rounds, parameters.stacked(model)).by_depth(params)
    where = shardings_of(abstract_params(outline, to))

    def move(x: jax.Array, where: jax.sharding.NamedSharding) -> jax.Array:
        moved: jax.Array = jax.jit(lambda x: x, out_shardings=where)(x)
        return moved

    return outline, jax.tree.map(move, params, where), to
