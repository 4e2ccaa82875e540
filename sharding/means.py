"""How a decoder computes on a mesh: what `sharding` hands to a model that knows of none."""

from jax.sharding import Mesh

from model import products
from model.config import ModelConfig
from model.layers import Means, Multiply, einsum
from sharding.attention import attention
from sharding.placement import constrainer


def means(mesh: Mesh, config: ModelConfig) -> Means:
    """Those of a decoder on the devices of a mesh, whether they are here or not."""
    return Means(constrainer(mesh), attention(mesh, config), _multiply(mesh, config))


def _multiply(mesh: Mesh, config: ModelConfig) -> Multiply:
    if config.quantization != "none":
        return products.quantized(config.quantization)
    return products.flat if mesh.devices.flat[0].platform == "cpu" else einsum
