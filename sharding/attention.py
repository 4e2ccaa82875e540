"""Which kernel computes attention, and that each device computes it for its own rows and heads."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from model.config import ModelConfig
from model.kernels import blockwise, splash, triton
from model.layers import Attend
from sharding import collectives
from sharding.table import mesh_axes, sharding


class Kernel(NamedTuple):
    """Attributes:
    name: for people.
    platform: of the devices that it is for; "" is any.
    takes: tells whether it can compute a model's attention.
    attend: of model/kernels.
    """

    name: str
    platform: str
    takes: Callable[[ModelConfig], bool]
    attend: Callable[..., jax.Array]


def _bfloat16(config: ModelConfig) -> bool:
    """Kernels multiply float32 with less than its precision; XLA's products can be told not to."""
    return config.dtype == "bfloat16"


def _plain(config: ModelConfig) -> bool:
    asked = config.sliding_window or config.attention_softcap
    return _bfloat16(config) and not asked and config.head_dim in triton.HEAD_SIZES


KERNELS = (
    Kernel("splash (Pallas)", "tpu", _bfloat16, splash.attend),
    Kernel("flash (Pallas, Triton)", "gpu", _plain, triton.attend),
    Kernel("blockwise (XLA)", "", lambda config: True, blockwise.attend),
)
"""The first that is for the platform and takes the model is the one."""


def kernel(mesh: Mesh, config: ModelConfig) -> Kernel:
    """The kernel for the devices of a mesh, whether they are here or not."""
    platform = mesh.devices.flat[0].platform
    return next(k for k in KERNELS if k.platform in (platform, "") and k.takes(config))


def attention(mesh: Mesh, config: ModelConfig) -> Attend:
    """The `attend` that the model is handed."""
    asked = {"window": config.sliding_window, "softcap": config.attention_softcap}
    asked = {name: value for name, value in asked.items() if value}
    attend = functools.partial(kernel(mesh, config).attend, **asked)
    if mesh.size == 1:
        return attend
    heads = mesh_axes(mesh, "heads", config.num_heads)

    def on_mesh(
        q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BT: jax.Array
    ) -> jax.Array:
        queries, keys, segments = (
            sharding(mesh, axes, x.shape).spec
            for axes, x in (
                (("batch", "length", "heads", "head_dim"), q_BTNH),
                (("batch", "length", "kv_heads", "head_dim"), k_BTKH),
                (("batch", "length"), segments_BT),
            )
        )
        group = q_BTNH.shape[2] // k_BTKH.shape[2]
        whole = keys[2] != queries[2]  # key-value heads are not split where queries are

        def on_device(
            q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, segments_BT: jax.Array
        ) -> jax.Array:
            if whole:
                n = q_BTNH.shape[2]
                of_query = (collectives.index(heads) * n + jnp.arange(n)) // group
                k_BTKH, v_BTKH = (jnp.take(x, of_query, axis=2) for x in (k_BTKH, v_BTKH))
            return attend(q_BTNH, k_BTKH, v_BTKH, segments_BT)

        return jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(queries, keys, keys, segments),
            out_specs=queries,
            check_vma=False,  # kernels do not say which axes their results vary along
        )(q_BTNH, k_BTKH, v_BTKH, segments_BT)

    return on_mesh
