"""What XLA is asked for when the training step is compiled, by platform."""

import os

import jax
from jax.sharding import Mesh

OPTIONS: dict[str, dict[str, bool]] = {
    # Exchanges run beside products of matrices.
    "gpu": {"xla_gpu_enable_latency_hiding_scheduler": True},
    # Of itself the compiler splits products and their exchanges into rings that overlap: most of
    # what is exchanged travels so, as collective-permute (docs/performance.md).
    "tpu": {},
}

if jax.__version_info__ < (0, 11):
    # Also from one layer of the scan to the next. XLA of JAX 0.12 has no such options, and refuses
    # to compile with options that it does not have.
    OPTIONS["gpu"] |= {
        "xla_gpu_enable_pipelined_all_gather": True,
        "xla_gpu_enable_pipelined_all_reduce": True,
        "xla_gpu_enable_pipelined_reduce_scatter": True,
    }


def options(mesh: Mesh) -> dict[str, bool]:
    """Those for the devices of a mesh, less what XLA_FLAGS says something of."""
    asked, said = OPTIONS.get(mesh.devices.flat[0].platform, {}), os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in asked.items() if f"--{name}=" not in said}
