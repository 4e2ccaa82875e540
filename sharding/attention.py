"""Which kernel computes attention, and that each device computes it for its own part of it all."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from model.config import ModelConfig
from model.kernels import blockwise, splash, splash_parts, triton
from model.layers import Attend
from sharding import collectives, context
from sharding.config import ContextAttention
from sharding.table import mesh_axes, sharding, ways

Form = Literal["whole", "ring", "gather"]
"""How a device comes by the keys of its queries: it has whole rows, or see sharding/context.py."""


class Kernel(NamedTuple):
    """Attributes:
    name: for people.
    platform: of the devices that it is for; "" is any.
    takes: tells whether it can compute a model's attention.
    attend: of model/kernels, what the form needs: `attend`, `parts` or `attend_part`.
    """

    name: str
    platform: str
    takes: Callable[[ModelConfig], bool]
    attend: Callable[..., Any]


def _bfloat16(config: ModelConfig) -> bool:
    """Kernels multiply float32 with less than its precision; XLA's products can be told not to."""
    return config.dtype == "bfloat16"


def _unwindowed(config: ModelConfig) -> bool:
    return _bfloat16(config) and not config.sliding_window


def _plain(config: ModelConfig) -> bool:
    return (
        _unwindowed(config)
        and not config.attention_softcap
        and not config.attention_sinks
        and not config.latent.kv_rank  # values of another size
        and config.head_dim in triton.HEAD_SIZES
    )


def _any(config: ModelConfig) -> bool:
    del config
    return True


_SPLASH, _BLOCKWISE = "splash (Pallas)", "blockwise (XLA)"

KERNELS: Mapping[Form, tuple[Kernel, ...]] = {
    "whole": (
        Kernel(_SPLASH, "tpu", _bfloat16, splash.attend),
        Kernel("flash (Pallas, Triton)", "gpu", _plain, triton.attend),
        Kernel(_BLOCKWISE, "", _any, blockwise.attend),
    ),
    "ring": (
        Kernel(_SPLASH, "tpu", _unwindowed, splash_parts.parts),
        Kernel(_BLOCKWISE, "", _any, blockwise.parts),
    ),
    "gather": (
        Kernel(_SPLASH, "tpu", _bfloat16, splash.attend_part),
        Kernel(_BLOCKWISE, "", _any, blockwise.attend_part),
    ),
}
"""The first that is for the platform and takes the model is the one."""


def form(
    platform: str, devices: int, config: ModelConfig, asked: ContextAttention = "auto"
) -> Form:
    """How so many devices along `context` come by the keys that they need.

    "auto" is the ring, whose memory is linear in a device's part of a row, unless there is a
    kernel for the hardware that only keys gathered can have: on TPUs, with sliding windows. And
    where there are sinks, which are those of all keys.

    Raises:
      ValueError: a ring is asked for, and there are sinks.
    """
    if devices == 1:
        return "whole"
    if config.attention_sinks:
        if asked == "ring":
            raise ValueError("context_attention='ring' has no sinks: leave it 'auto'")
        return "gather"
    if asked != "auto":
        return asked
    ring, gather = _first(platform, config, "ring"), _first(platform, config, "gather")
    return "gather" if gather.platform and not ring.platform else "ring"


def kernel(mesh: Mesh, config: ModelConfig, asked: ContextAttention = "auto") -> Kernel:
    """The kernel for the devices of a mesh, whether they are here or not."""
    return _first(_platform(mesh), config, _form(mesh, config, asked))


def _platform(mesh: Mesh) -> str:
    platform: str = mesh.devices.flat[0].platform
    return platform


def _form(mesh: Mesh, config: ModelConfig, asked: ContextAttention) -> Form:
    return form(_platform(mesh), mesh.shape["context"], config, asked)


def _first(platform: str, config: ModelConfig, form: Form) -> Kernel:
    return next(k for k in KERNELS[form] if k.platform in (platform, "") and k.takes(config))


def described(mesh: Mesh, config: ModelConfig, asked: ContextAttention = "auto") -> str:
    """The kernel, and how it comes by its keys, for people."""
    across = {"whole": "", "ring": ", in a ring of {}", "gather": ", keys gathered over {}"}
    how = across[_form(mesh, config, asked)].format(f"context={mesh.shape['context']}")
    return kernel(mesh, config, asked).name + how


def attention(mesh: Mesh, config: ModelConfig, asked: ContextAttention = "auto") -> Attend:
    """The `attend` that the model is handed.

    Along `context` tokens are in the order of sharding/order.py.
    """
    found = kernel(mesh, config, asked).attend

    def of_layers(window: int) -> Callable[..., jax.Array]:
        options = {"window": window, "softcap": config.attention_softcap}
        options = {name: value for name, value in options.items() if value}
        attend = functools.partial(found, **options)
        if (how := _form(mesh, config, asked)) == "whole":
            return attend
        across = context.ring if how == "ring" else context.gathered
        axes = mesh_axes(mesh, "length", None)
        return functools.partial(across, attend, axes, ways(mesh, "length"))

    near, far = of_layers(config.sliding_window), of_layers(0)

    def attend(
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        segments_BT: jax.Array,
        local: jax.Array | None = None,
        sinks_N: jax.Array | None = None,
    ) -> jax.Array:
        rows = q_BTNH, k_BTKH, v_BTKH, segments_BT
        of_heads = {} if sinks_N is None else {"sinks_N": sinks_N}
        if local is None:
            return near(*rows, **of_heads)
        return jax.lax.cond(
            local,
            lambda of_heads, *rows: near(*rows, **of_heads),
            lambda of_heads, *rows: far(*rows, **of_heads),
            of_heads,
            *rows,
        )

    if mesh.size == 1:
        return attend
    heads = mesh_axes(mesh, "heads", config.num_heads)

    def on_mesh(
        q_BTNH: jax.Array,
        k_BTKH: jax.Array,
        v_BTKH: jax.Array,
        segments_BT: jax.Array,
        local: jax.Array | None = None,
        sinks_N: jax.Array | None = None,
    ) -> jax.Array:
        queries, keys, segments = (
            sharding(mesh, axes, x.shape).spec
            for axes, x in (
                (("batch", "length", "heads", "head_dim"), q_BTNH),
                (("batch", "length", "kv_heads", "head_dim"), k_BTKH),
                (("batch", "length"), segments_BT),
            )
        )
        everywhere = PartitionSpec()
        by_head = PartitionSpec(queries[2])
        group = q_BTNH.shape[2] // k_BTKH.shape[2]
        whole = keys[2] != queries[2]  # key-value heads are not split where queries are

        def on_device(
            q_BTNH: jax.Array,
            k_BTKH: jax.Array,
            v_BTKH: jax.Array,
            segments_BT: jax.Array,
            local: jax.Array | None,
            sinks_N: jax.Array | None,
        ) -> jax.Array:
            if whole:
                n = q_BTNH.shape[2]
                # One for all query heads here, if one serves them all; else one for each.
                each = jnp.arange(1 if group % n == 0 else n)
                of_query = (collectives.index(heads) * n + each) // group
                k_BTKH, v_BTKH = (jnp.take(x, of_query, axis=2) for x in (k_BTKH, v_BTKH))
            return attend(q_BTNH, k_BTKH, v_BTKH, segments_BT, local, sinks_N)

        return jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(queries, keys, keys, segments, everywhere, by_head),
            out_specs=queries,
            check_vma=False,  # kernels do not say which axes their results vary along
        )(q_BTNH, k_BTKH, v_BTKH, segments_BT, local, sinks_N)

    return on_mesh
