"""How a decoder computes on a mesh: what `sharding` hands to a model that knows of none."""

from jax.sharding import Mesh

from errors import UserError
from model import products
from model.config import ModelConfig
from model.layers import Means, Multiply, einsum
from sharding.attention import attention
from sharding.experts import experts
from sharding.placement import constrainer


def means(mesh: Mesh, config: ModelConfig) -> Means:
    """Those of a decoder on the devices of a mesh, whether they are here or not.

    Raises:
      UserError: a package that the config needs is not installed.
    """
    multiply = _multiply(mesh, config)
    return Means(constrainer(mesh), attention(mesh, config), multiply, experts(mesh, config))


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
