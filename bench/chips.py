"""What libtpu knows of each TPU: how JAX calls it, what memory a program may use, how fast it is.

    python -m bench chips

Nothing is run: with libtpu installed, two programs are compiled for each. One is larger than any
memory, and is refused with the size that it would have to fit; the other is a product of two bf16
matrices of 8,192 x 8,192, of which the compiler estimates the cycles. planning/chips.py has the
numbers.
"""

import os
import re
import sys
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
import jax.numpy as jnp
from absl import app
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from bench import results
from planning import hlo
from planning.chips import CHIPS
from planning.work import Schedule

SIDE = 8192
_AVAILABLE = re.compile(r"available HBM \(([\d.]+)G\)|of ([\d.]+)G hbm")


def measure(name: str, **options: Any) -> dict[str, Any]:
    """What the compiler says of one device of a chip."""
    shape = "2x2" if name in ("v5e", "v6e") else "2x2x1"
    topology = topologies.get_topology_desc(f"{name}:{shape}", "tpu", **options)
    device: Any = topology.devices[0]
    here = SingleDeviceSharding(device)

    def compiled(function: Any, side: int, dtype: Any, arguments: int) -> Any:
        like = jax.ShapeDtypeStruct((side, side), dtype, sharding=here)
        return jax.jit(function).lower(*[like] * arguments).compile()

    text = compiled(jnp.matmul, SIDE, jnp.bfloat16, 2).as_text()
    cycles = Schedule(hlo.parse(text)).work().cycles
    try:
        compiled(lambda x: x * 2 + 1, 1 << 19, jnp.float32, 1)
        raise AssertionError("a terabyte fits")
    except jax.errors.JaxRuntimeError as error:
        found = _AVAILABLE.search(str(error))
        assert found, error
    return {
        "device_kind": device.device_kind,
        "devices_a_chip": len(topology.devices) // 4,
        "cores_a_device": device.num_cores,
        "usable_GiB": float(found[1] or found[2]),
        "flops_a_cycle": round(2 * SIDE**3 / cycles),
    }


def main(argv: list[str]) -> None:
    del argv
    try:
        import libtpu  # noqa: F401
    except ImportError:
        sys.exit("error: needs libtpu: `make setup EXTRA=tpu`")
    found = {}
    for name, chip in CHIPS.items():
        if not chip.units:
            continue
        # v4 and v5p join a chip's cores to one device; of v4 libtpu has to be told so.
        options = {"chip_config_name": "megacore"} if name == "v4" else {}
        one = measure(name, **options)
        most = 2 * chip.units * chip.side**2 / one["devices_a_chip"]
        one["share_of_units"] = round(one["flops_a_cycle"] / most, 3)
        found[name] = one
        print(f"{name:6} {one}", flush=True)
    results.write({"side": SIDE, "chips": found})


if __name__ == "__main__":
    app.run(main)
