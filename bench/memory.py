"""What attention and head take of a device's memory, forward and backward, as sequences grow.

    python -m bench memory

Nothing is run: the programs are compiled for what is here, or with --hardware=tpu_aot and libtpu
for one TPU, and the compiler says what it allocates beside arguments and results.
"""

import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.experimental import topologies

from bench import results
from model.config import ModelConfig
from sharding.attention import attention, kernel
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from sharding.table import sharding
from training import head

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


def _mesh() -> Any:
    if HARDWARE.value == "here":
        return make_mesh(MeshConfig(), jax.devices()[:1])
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    except Exception as error:
        sys.exit(f"error: --hardware=tpu_aot needs libtpu: {str(error).splitlines()[0]}")
    return make_mesh(MeshConfig(), topology.devices[:1])


def temporaries(function: Any, mesh: Any, *like: Any) -> int:
    """Bytes beside arguments and results, of a value and its gradients in all floats."""
    where = sharding(mesh, ())
    shapes = [jax.ShapeDtypeStruct(*one, sharding=where) for one in like]
    of = [i for i, one in enumerate(shapes) if jnp.issubdtype(one.dtype, jnp.floating)]
    step = jax.jit(jax.grad(function, argnums=of), out_shardings=where)
    memory = step.lower(*shapes).compile().memory_analysis()
    assert memory is not None
    return int(memory.temp_size_in_bytes)


def main(argv: list[str]) -> None:
    del argv
    mesh = _mesh()
    attend = attention(mesh, CONFIG)
    device = mesh.devices.flat[0].device_kind
    print(f"one {device}, jax {jax.__version__}, attention: {kernel(mesh, CONFIG).name}")
    found = {}
    for length in LENGTHS:
        heads = ((1, length, CONFIG.num_heads, CONFIG.head_dim), jnp.bfloat16)
        ids = ((1, length), jnp.int32)
        of_attention = temporaries(
            lambda q, k, v, s: jnp.sum(attend(q, k, v, s).astype(jnp.float32)),
            mesh,
            *(heads, heads, heads, ids),
        )
        of_head = temporaries(
            lambda table, x, targets: head.losses(
                CONFIG, mesh, 0.0, table, x, targets, jnp.ones(targets.shape)
            )[0],
            mesh,
            ((CONFIG.padded_vocab_size, CONFIG.embed_dim), jnp.float32),
            ((1, length, CONFIG.embed_dim), jnp.bfloat16),
            ids,
        )
        print(
            f"{length:6} tokens: attention {of_attention / 1e6:8.1f} MB, "
            f"head {of_head / 1e6:8.1f} MB",
            flush=True,
        )
        found[length] = {"attention": of_attention, "head": of_head}
    about = {"device": device, "attention": kernel(mesh, CONFIG).name}
    results.write(about | {"temporary_bytes": found})


if __name__ == "__main__":
    sys.exit(app.run(main))
