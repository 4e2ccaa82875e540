"""How a decoder computes on a mesh: what `sharding` hands to a model that knows of none."""

from jax.sharding import Mesh

from errors import UserError
from model import products, remat
from model.config import ModelConfig
from model.layers import Means, Multiply, einsum
from sharding import pipeline
from sharding.attention import attention
from sharding.config import MeshConfig
from sharding.embedding import looking_up
from sharding.experts import experts
from sharding.placement import constrainer
from sharding.schedule import order
from sharding.summing import summing


def means(mesh: Mesh, config: ModelConfig, layout: MeshConfig | None = None) -> Means:
    """Those of a decoder on the devices of a mesh, whether they are here or not.

    Args:
      mesh: the mesh.
      config: of the decoder.
      layout: what the mesh does not say, of context and of stages; None is the defaults.

    Raises:
      UserError: a package that the config needs is not installed.
    """
    layout = layout or MeshConfig()
    attend = attention(mesh, config, layout.context_attention)
    found = Means(
        constrainer(mesh),
        attend,
        attend if mesh.shape["context"] == 1 else None,
        _multiply(mesh, config),
        _here(mesh),
        remat.naming(config),
        looking_up(mesh),
        experts(mesh, config),
    )
    if (stages := mesh.shape["pipeline"]) == 1:
        return found
    return found._replace(
        run_layers=pipeline.runner(mesh, layout),
        order=order(stages, layout.rounds, config.num_layers),
    )


def _multiply(mesh: Mesh, config: ModelConfig) -> Multiply:
    if config.quantization != "none":
        try:
            return products.quantized(config.quantization)
        except ModuleNotFoundError as error:
            if error.name != "qwix":
                raise  # it is there, and has changed inside
            raise UserError(
                f"config.model.quantization={config.quantization!r} needs the package qwix: "
                "`make setup QUANTIZATION=1`"
            ) from error
    return summing(mesh, _here(mesh), keeps=config.remat == "none")


def _here(mesh: Mesh) -> Multiply:
    """What multiplies fastest."""
    return products.flat if mesh.devices.flat[0].platform == "cpu" else einsum
