"""What converting a checkpoint takes of a host's memory, beside the parameters themselves.

    python -m bench conversion

A checkpoint of the shape of Llama 3.2 1B with four layers more, 3 GB of bfloat16 noise in one file,
is converted by convert.py on this machine's CPU, where the parameters, in float32, are in the
host's memory, too. Linux alone tells of a process its peak.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from absl import app, flags

from bench import results
from conversion import pieces
from conversion.safetensors_files import SINGLE, Writer
from model import parameters
from model.families import FAMILIES
from model.families.hf_config import HfConfig

LAYERS = flags.DEFINE_integer("layers", 20, "Of the model.")
VOCABULARY = flags.DEFINE_integer("vocabulary", 128256, "Of the model.")

_FAMILY = "llama"
_POLL_S = 0.05


def _config() -> dict[str, Any]:
    return {
        "model_type": _FAMILY,
        "vocab_size": VOCABULARY.value,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": LAYERS.value,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
    }


def write_checkpoint(folder: Path) -> tuple[int, int, int]:
    """Writes it; returns its bytes, those of its parameters in float32, and of its largest."""
    family = FAMILIES[_FAMILY]
    config = family.from_hf(HfConfig(_config()))
    wanted = pieces.pieces(family, parameters.outline(config))
    dtype = np.dtype(ml_dtypes.bfloat16)
    writer = Writer(folder / SINGLE, [(piece.theirs, dtype, piece.shape) for piece in wanted])
    random = np.random.default_rng(0)
    for piece in wanted:
        noise = random.standard_normal(piece.shape, np.float32) * np.float32(0.02)
        writer.write(piece.theirs, noise.astype(dtype))
    writer.close()
    (folder / "config.json").write_text(json.dumps(_config()))
    largest = max(math.prod(piece.shape) for piece in wanted)
    return (folder / SINGLE).stat().st_size, 4 * config.num_params(), 2 * largest


def peak_of(command: list[str]) -> tuple[int, float]:
    """The peak of a command's memory in bytes, and its seconds.

    Raises:
      RuntimeError: it failed.
    """
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            found = (line.split()[1] for line in lines if line.startswith("VmHWM"))
            peak = max(peak, 1024 * int(next(found, "0")))
        except (FileNotFoundError, ProcessLookupError):
            pass
        time.sleep(_POLL_S)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return peak, time.perf_counter() - began


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "checkpoint"
        folder.mkdir()
        size, held, largest = write_checkpoint(folder)
        workdir = f"--workdir={name}/workdir"
        command = [sys.executable, "convert.py", "from-hf", str(folder), workdir]
        # What the process is without a checkpoint to speak of: Python, JAX and what they load.
        bare, _ = peak_of([sys.executable, "-c", "import convert, jax; jax.devices()"])
        peak, seconds = peak_of(command)
        written = sum(p.stat().st_size for p in (Path(name) / "workdir").rglob("*") if p.is_file())
    beside = peak - held
    print(
        f"{size / 1e9:.2f} GB of weights, {held / 1e9:.2f} GB of parameters: peak "
        f"{peak / 1e9:.2f} GB, {beside / 1e9:.2f} GB beside the parameters (of which a process "
        f"without any has {bare / 1e9:.2f} GB; the largest weight has {largest / 1e9:.2f} GB); "
        f"{written / 1e9:.2f} GB on disk, {seconds:.0f} s"
    )
    results.write(
        {
            "checkpoint_bytes": size,
            "parameter_bytes": held,
            "largest_weight_bytes": largest,
            "peak_bytes": peak,
            "beside_bytes": beside,
            "bare_bytes": bare,
            "written_bytes": written,
            "seconds": seconds,
        }
    )


if __name__ == "__main__":
    app.run(main)
