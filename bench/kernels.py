"""How libtpu schedules the kernels of attention on each TPU: instructions of a block, and beside.

    python -m bench kernels

Nothing is run: with libtpu installed, attention with its gradients is compiled for one device of
each chip, and what libtpu writes of its kernels is read: bundles of instructions, one a cycle. Each
kernel goes through blocks of 512 queries and 512 keys in a loop with three parts that it may skip:
the beginning of a line of blocks, the block, and the end of the line. planning/attention.py has the
numbers.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import app

from bench import results
from planning.chip import Torus
from planning.chips import CHIPS
from planning.topology import parse

LENGTH, HEADS, SIZES = 2048, 4, (128, 256)
PHASES = ("fwd", "dkv", "dq")
_FLAGS = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true"
_FLAGS += " --xla_jf_dump_llo_pass_label_regex=.*final_bundles.*"
_BUNDLE = re.compile(r"\s*(0x[0-9a-f]+|\d+)\s+(LB|PF)?:?\s*[ >:]")
_JUMP = re.compile(r"sbr\.rel \((!?)%\w+\)")


def cycles(text: str) -> dict[str, int]:
    """Of a kernel, from its bundles.

    Returns:
      bundles of each turn of the loop ("step"), of the beginning and the end of a line ("line"),
      and of a block ("block"), without the others.
    """
    begin = turn = 0
    jumps: list[int] = []  # over a part, until its end is seen
    parts: list[int] = []
    for line in text.splitlines():
        if not (found := _BUNDLE.match(line)):
            continue
        at = int(found[1], 0)
        if found[2] == "LB":
            begin = at
        elif found[2] == "PF" and len(jumps) > 1:  # the first jump is over all of a turn
            parts.append(at - jumps.pop())
        if jump := _JUMP.search(line):
            if jump[1] and len(parts) == 3:
                turn = at - begin
                break
            jumps.append(at)
    first, block, last = parts
    return {"step": turn - sum(parts), "line": first + last, "block": block}


def measure(topology: str, size: int) -> dict[str, dict[str, int]]:
    """Of each phase, from a process of its own: libtpu reads its flags once."""
    with tempfile.TemporaryDirectory() as folder:
        asked = {"LIBTPU_INIT_ARGS": _FLAGS.format(folder), "JAX_PLATFORMS": "cpu"}
        asked |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"from bench import kernels; kernels.compile_for({topology!r}, {size})",
            ],
            env=os.environ | asked,
            check=True,
            stderr=subprocess.DEVNULL,
        )
        found = {}
        for phase in PHASES:
            (path,) = Path(folder).glob(f"*_{phase}_*[0-9]-final_bundles.txt")
            found[phase] = cycles(path.read_text())
    return found


def compile_for(topology: str, size: int) -> None:
    """Compiles attention with its gradients for one device."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from model.kernels import splash

    device: Any = topologies.get_topology_desc(**parse(topology).libtpu()).devices[0]
    here = SingleDeviceSharding(device)
    heads = jax.ShapeDtypeStruct((1, LENGTH, HEADS, size), jnp.bfloat16, sharding=here)
    ids = jax.ShapeDtypeStruct((1, LENGTH), jnp.int32, sharding=here)

    def total(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
        return jnp.sum(splash.attend(q, k, v, segments).astype(jnp.float32))

    jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(heads, heads, heads, ids).compile()


def main(argv: list[str]) -> None:
    del argv
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("error: needs libtpu: `make setup EXTRA=tpu`")
    found: dict[str, Any] = {}
    for name, chip in CHIPS.items():
        if isinstance(chip.links, Torus):
            like = "2x2" if chip.links.dimensions == 2 else "2x2x1"
            found[name] = {size: measure(f"{name}:{like}", size) for size in SIZES}
            print(f"{name:6} {json.dumps(found[name])}", flush=True)
    results.write({"side": 512, "chips": found})


if __name__ == "__main__":
    app.run(main)
