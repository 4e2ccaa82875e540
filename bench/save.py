"""What saving a checkpoint takes of a host's memory, beside the state itself.

    python -m bench save

The state is float32 noise on this machine's CPU. There its copy "off the devices" is the array
itself, so what is measured is what is held beside that copy until all is on disk. Linux alone tells
a process its peak.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from bench import results
from checkpointing.checkpoints import Checkpoints
from training.state import TrainState

SIZES = flags.DEFINE_list("megabytes", ["800", "3200"], "Sizes of the state.")
_ARRAYS = 12


def _resident(what: str) -> int:
    """VmRSS (now) or VmHWM (the peak) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(what)))


def measure(size: int) -> dict[str, Any]:
    """Saves a state of about `size` bytes."""
    shape = (_ARRAYS, size // _ARRAYS // 4 // 4096, 4096)
    noise = jax.jit(lambda key: list(jax.random.normal(key, shape)))(jax.random.key(0))
    state = TrainState({str(i): x for i, x in enumerate(noise)}, {}, jnp.int32(0))
    jax.block_until_ready(noise)
    with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, keep=1) as checkpoints:
        little = TrainState({"0": jnp.zeros(8)}, {"count": jnp.int32(0)}, jnp.int32(0))
        checkpoints.save(0, little, {})
        checkpoints.wait()
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        checkpoints.save(1, TrainState(state.params, little.opt_state, state.step), {})
        checkpoints.wait()
        beside = _resident("VmHWM") - before
        files = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
        written = sum(path.stat().st_size for path in files)
    held = sum(x.nbytes for x in noise)
    return {"state": held, "beside": beside / held, "on_disk": written / held}


def main(argv: list[str]) -> None:
    del argv
    found = {size: measure(int(size) * 10**6) for size in SIZES.value}
    for size, one in found.items():
        print(f"{size:>6} MB: {one['beside']:.2f} x beside it, {one['on_disk']:.3f} x on disk")
    results.write({"megabytes": found})


if __name__ == "__main__":
    app.run(main)
