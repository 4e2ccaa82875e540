"""Compiles one side's training step for TPUs that are not here, and prints what the compiler says.

    python -m bench.tpu_side podium llama2_7b

Run by bench/tpu.py, in an environment with JAX for TPUs; nothing is executed on a device.
"""

import functools
import hashlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}

import jax
from jax.experimental import topologies

from bench.tpu import SHAPES, Shape
from planning import program
from planning.topology import parse
from reporting.environment import describe
from training.config import OptimizerConfig, OptimizerName, RunConfig, TrainConfig


def podium(shape: Shape, optimizer: OptimizerName = "adamw") -> Any:
    """Compiles our step."""
    from data.config import DataConfig
    from sharding.config import MeshConfig
    from sharding.mesh import make_mesh
    from training.assembly import assemble, lowered

    devices: Any = topologies.get_topology_desc(**parse(shape.topology).libtpu()).devices
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1, expert=shape.expert), devices)
    config = RunConfig(
        model=shape.config(),
        data=DataConfig(source="python_stdlib", sequence_length=shape.length),
        optimizer=OptimizerConfig(name=optimizer),
        train=TrainConfig(batch_size=shape.rows * len(devices)),
    )
    return lowered(config, assemble(config, mesh)).compile()


def maxtext(shape: Shape) -> Any:
    """Compiles MaxText's step by its own command."""
    from maxtext.configs import pyconfig  # type: ignore[import-not-found]
    from maxtext.trainers.pre_train import train_compile  # type: ignore[import-not-found]

    found: list[Any] = []
    compile_now = jax.stages.Lowered.compile

    def kept(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(compile_now(self, *args, **kwargs))
        return found[-1]

    jax.stages.Lowered.compile = kept  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as out:
        train_compile.main(
            [
                "train_compile",
                os.path.join(os.path.dirname(pyconfig.__file__), "base.yml"),
                f"compile_topology={shape.maxtext_topology}",
                "compile_topology_num_slices=1",
                f"model_name={shape.maxtext_model}",
                f"per_device_batch_size={shape.rows}",
                f"max_target_length={shape.length}",
                f"ici_expert_parallelism={shape.expert}",
                "remat_policy=full",
                "enable_checkpointing=false",
                "run_name=x",
                f"base_output_directory={out}",
            ]
        )
    return found[-1]


SIDES: dict[str, Callable[[Shape], Any]] = {
    "podium": podium,
    "podium_muon": functools.partial(podium, optimizer="muon"),
    "maxtext": maxtext,
}


def _mesh(compiled: Any) -> Any:
    """The mesh over which a program's arguments are split."""
    shardings = jax.tree.leaves(compiled.input_shardings)
    return next(one.mesh for one in shardings if isinstance(one, jax.sharding.NamedSharding))


def main() -> None:
    side, name = sys.argv[1:]
    began = time.perf_counter()
    compiled = SIDES[side](SHAPES[name])
    seconds = time.perf_counter() - began
    if dump := os.environ.get("DUMP"):
        with open(dump, "w") as file:
            file.write(compiled.as_text())
    found = program.read(compiled, _mesh(compiled))
    exchanges: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for one in found.exchanges:
        exchanges[one.kind] += one.times * one.sent
        calls[one.kind] += one.times
    memory = compiled.memory_analysis()
    result = {
        "side": side,
        "config_hash": hashlib.sha256(repr(SHAPES[name].config()).encode()).hexdigest()[:12],
        "shape": name,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "compile_s": round(seconds, 1),
        "environment": describe() | {"maxtext": metadata.version("maxtext")},
        "cycles": found.work.cycles,
        "kernels": {key: kernel._asdict() for key, kernel in found.work.kernels.items()},
        "exchanges": dict(exchanges),
        "exchange_calls": dict(calls),
    }
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
