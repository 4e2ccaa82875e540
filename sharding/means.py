"""How a decoder computes on a mesh: what `sharding` hands to a model that knows of none."""

from jax.sharding import Mesh

from errors import UserError
from model import products
from model.config import ModelConfig
from model.layers import Means, Multiply, einsum
from sharding.attention import attention
from sharding.config import ContextAttention
from sharding.placement import constrainer


def means(mesh: Mesh, config: ModelConfig, context_attention: ContextAttention = "auto") -> Means:
    """Those of a decoder on the devices of a mesh, whether they are here or not.

    Args:
      mesh, config: of the decoder.
      context_attention: see MeshConfig.

    Raises:
      UserError: a package that the config needs is not installed.
    """
    return Means(
        constrainer(mesh), attention(mesh, config, context_attention), _multiply(mesh, config)
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
    return products.flat if mesh.devices.flat[0].platform == "cpu" else einsum
