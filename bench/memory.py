"""What attention, head and a training step take of a device's memory as sequences grow.

    python -m bench memory

Nothing is run: the programs are compiled for what is here, or with --hardware=tpu_aot and libtpu
for TPUs, and the compiler says what it allocates beside arguments and results. First attention and
head, forward and backward, of rows on one device; then attention and a whole step, of one length,
also of rows along `context` on eight devices.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.experimental import topologies
from jax.sharding import Mesh

from bench import results
from model import parameters
from model.config import ModelConfig
from sharding.attention import attention, described, kernel
from sharding.config import ContextAttention, MeshConfig
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.placement import abstract_rows
from sharding.table import sharding
from training import head
from training.config import OptimizerConfig, TrainConfig
from training.objectives.next_token import NextToken
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import NOTHING, abstract_state
from training.step import make_step

HARDWARE = flags.DEFINE_enum("hardware", "here", ["here", "tpu_aot"], "What to compile for.")
LENGTHS = (8192, 16384, 32768, 65536)
CONFIG = ModelConfig(
    vocab_size=32768,
    num_layers=1,
    embed_dim=1024,
    num_heads=8,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=4096,
    max_length=LENGTHS[-1],
    dtype="bfloat16",
)
LAYOUTS: Sequence[tuple[int, ContextAttention]] = ((1, "auto"), (8, "ring"), (8, "gather"))
"""Devices along `context`, and how attention crosses them."""
ALONG = 32768
"""Tokens of a row that lies along them."""
GROUPED = dataclasses.replace(CONFIG, num_layers=2, num_kv_heads=2, remat="full")
"""What these rows go through."""


def _devices() -> Sequence[Any]:
    if HARDWARE.value == "here":
        return jax.devices()
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    except Exception as error:
        sys.exit(f"error: --hardware=tpu_aot needs libtpu: {str(error).splitlines()[0]}")
    return topology.devices


def _mesh(devices: Sequence[Any], context: int = 1) -> Mesh:
    return make_mesh(MeshConfig(data=1, context=context), devices[:context])


def _bytes(step: Any, *like: Any) -> int:
    memory = step.lower(*like).compile().memory_analysis()
    assert memory is not None
    return int(memory.temp_size_in_bytes)


def temporaries(function: Any, mesh: Mesh, *like: Any) -> int:
    """Bytes beside arguments and results, of a value and its gradients in all floats.

    Args:
      function: of arrays.
      mesh: of them.
      like: shape, dtype and logical axes of each.
    """
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=sharding(mesh, axes, shape))
        for shape, dtype, axes in like
    ]
    of = [i for i, one in enumerate(shapes) if jnp.issubdtype(one.dtype, jnp.floating)]
    where = tuple(shapes[i].sharding for i in of)
    return _bytes(jax.jit(jax.grad(function, argnums=of), out_shardings=where), *shapes)


def of_attention(mesh: Mesh, config: ModelConfig, length: int, asked: ContextAttention) -> int:
    """Of attention over a row, forward and backward."""
    attend = attention(mesh, config, asked)
    queries, keys = (
        ((1, length, n, config.head_dim), jnp.bfloat16, ("batch", "length", heads, "head_dim"))
        for heads, n in (("heads", config.num_heads), ("kv_heads", config.num_kv_heads))
    )
    return temporaries(
        lambda q, k, v, s: jnp.sum(attend(q, k, v, s).astype(jnp.float32)),
        mesh,
        queries,
        keys,
        keys,
        ((1, length), jnp.int32, ("batch", "length")),
    )


def of_head(mesh: Mesh, config: ModelConfig, length: int) -> int:
    """Of the head over a row, forward and backward."""
    return temporaries(
        lambda table, x, targets: head.losses(
            config, mesh, NextToken(), table, x, targets, jnp.ones(targets.shape)
        )[0],
        mesh,
        ((config.padded_vocab_size, config.embed_dim), jnp.float32, ("vocab", "embed")),
        ((1, length, config.embed_dim), jnp.bfloat16, ("batch", "length", "act_embed")),
        ((1, length), jnp.int32, ("batch", "length")),
    )


def of_step(mesh: Mesh, config: ModelConfig, length: int, asked: ContextAttention) -> int:
    """Of a training step over a row."""
    train, optimizer = TrainConfig(batch_size=1), OptimizerConfig()
    layout = MeshConfig(context_attention=asked)
    outline = parameters.outline(config, means(mesh, config, layout))
    tx = make_optimizer(optimizer, train.steps, outline, mesh)
    state = abstract_state(tx, outline, mesh)
    schedule = learning_rate(optimizer, train.steps)
    ints = ("tokens", "targets", "segments", "positions", "bytes")
    some = {name: np.zeros((1, length), np.int32) for name in ints}
    some["weights"] = np.zeros((1, length), np.float32)
    step = make_step(outline, tx, schedule, train, mesh, state)
    return _bytes(step, state, NOTHING, abstract_rows(mesh, 1, some))


def main(argv: list[str]) -> None:
    del argv
    devices = _devices()
    mesh, device = _mesh(devices), devices[0].device_kind
    print(f"one {device}, jax {jax.__version__}, attention: {kernel(mesh, CONFIG).name}")
    found = {}
    for length in LENGTHS:
        alone = {
            "attention": of_attention(mesh, CONFIG, length, "auto"),
            "head": of_head(mesh, CONFIG, length),
        }
        print(
            f"{length:6} tokens: attention {alone['attention'] / 1e6:8.1f} MB, "
            f"head {alone['head'] / 1e6:8.1f} MB",
            flush=True,
        )
        found[length] = alone
    along: dict[str, dict[str, int]] = {}
    for context, asked in LAYOUTS if len(devices) >= 8 else ():
        mesh = _mesh(devices, context)
        one = {
            "attention": of_attention(mesh, GROUPED, ALONG, asked),
            "step": of_step(mesh, GROUPED, ALONG, asked),
        }
        along[described(mesh, GROUPED, asked)] = one
        whole = next(iter(along.values()))
        told = ", ".join(
            f"{name} {size / 1e6:8.1f} MB ({whole[name] / size:.1f}x less)"
            for name, size in one.items()
        )
        print(f"{ALONG:6} tokens, {described(mesh, GROUPED, asked)}: {told}", flush=True)
    about = {"device": device, "attention": kernel(_mesh(devices), CONFIG).name}
    results.write(about | {"temporary_bytes": found, "along_context": along, "along": ALONG})


if __name__ == "__main__":
    sys.exit(app.run(main))
