"""Steps of LoRA and DoRA beside those that train all parameters, in turns, on this machine.

    python -m bench tuning

The shape is SmolLM2-135M's, with random numbers, on the first device. FLOPs are those of products
of matrices in the compiled program; memory is what the program holds.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bench import results
from configs import smollm2_135m
from data import rows
from model import parameters
from model.config import ModelConfig
from planning.program import read
from sharding.config import MeshConfig
from sharding.means import means
from sharding.mesh import make_mesh
from training.config import OptimizerConfig, TrainConfig
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import Fixed, abstract_fixed, abstract_state, shardings_of, started
from training.step import make_step
from training.tuning import TuningConfig, moving

ROWS = flags.DEFINE_integer("rows", 2, "Rows of a step.")
LENGTH = flags.DEFINE_integer("length", 256, "Tokens of a row.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Steps of each that are timed.")
RANK = flags.DEFINE_integer("rank", 16, "Of adapters.")


class Run:
    """A step that is compiled, and what it is given."""

    def __init__(self, model: ModelConfig, tuning: TuningConfig, base: Any) -> None:
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        config = dataclasses.replace(model, adapter=tuning.adapter(model))
        outline = parameters.outline(config, means(mesh, config))
        moves, optimizer = moving(tuning, outline), OptimizerConfig()
        tx = make_optimizer(optimizer, 100, outline, mesh, moves)
        abstract = abstract_state(tx, outline, mesh, moves)
        of_fixed = Fixed(abstract_fixed(outline, mesh, moves))
        self._fixed = Fixed(moves.fixed(base))
        make = jax.jit(
            lambda params, fixed: started(outline, tx, 0, moves, params, fixed),
            out_shardings=shardings_of(abstract),
        )
        copied = jax.tree.map(jnp.copy, moves.of(base))  # the step takes its place
        self._state = make(copied, self._fixed.params)
        train = TrainConfig(steps=100, batch_size=ROWS.value)
        schedule = learning_rate(optimizer, 100)
        step: Any = make_step(outline, tx, schedule, train, mesh, abstract, of_fixed)
        self._batch = _batch(model.vocab_size)
        self._step = step.lower(self._state, self._fixed, self._batch).compile()
        program = read(self._step, mesh)
        self.flops, self.memory = program.work.flops, program.memory.total
        self.moving = sum(x.size for x in jax.tree.leaves(self._state.params))
        self.seconds: list[float] = []

    def __call__(self) -> None:
        began = time.perf_counter()
        self._state, metrics = self._step(self._state, self._fixed, self._batch)
        jax.block_until_ready(metrics)
        self.seconds.append(time.perf_counter() - began)


def _batch(vocab: int) -> dict[str, jax.Array]:
    """Rows of one document of random ids, every one of which is predicted."""
    random, shape = np.random.default_rng(0), (ROWS.value, LENGTH.value)
    batch = dict(rows.empty(*shape))
    ids = random.integers(0, vocab, (shape[0], shape[1] + 1)).astype(np.int32)
    batch |= {"tokens": ids[:, :-1], "targets": ids[:, 1:]}
    batch |= {"segments": np.ones(shape, np.int32), "weights": np.ones(shape, np.float32)}
    batch["positions"] = np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1))
    return {name: jnp.asarray(value) for name, value in batch.items()}


def main(argv: list[str]) -> None:
    del argv
    shape = smollm2_135m.get_config().model.to_dict() | {"dtype": "float32", "remat": "none"}
    model = ModelConfig(
        **{name: value for name, value in shape.items() if not isinstance(value, dict)}
    )
    base = jax.jit(lambda: parameters.initialize(model, 0))()
    rank = RANK.value
    methods = {
        "all": TuningConfig(),
        "lora": TuningConfig("lora", rank=rank),
        "lora, query and value": TuningConfig("lora", rank=rank, targets=("query", "value")),
        "dora": TuningConfig("dora", rank=rank),
    }
    runs = {name: Run(model, tuning, base) for name, tuning in methods.items()}
    for _ in range(ROUNDS.value + 1):
        for run in runs.values():
            run()
    every, found = runs["all"], {}
    for name, run in runs.items():
        ratios = [a / b for a, b in zip(run.seconds[1:], every.seconds[1:], strict=True)]
        found[name] = {
            "moving": run.moving,
            "flops": run.flops / every.flops,
            "memory": run.memory / every.memory,
            "time": float(np.median(ratios)),
            "tokens_per_s": ROWS.value * LENGTH.value / float(np.median(run.seconds[1:])),
        }
        print(
            f"{name:22s} {run.moving:>11,} move; of all parameters' step: products "
            f"{found[name]['flops']:.2f}, memory {found[name]['memory']:.2f}, time "
            f"{found[name]['time']:.2f} (median of {ROUNDS.value})",
            flush=True,
        )
    results.write({"rows": ROWS.value, "length": LENGTH.value, "rank": rank, "steps": found})


if __name__ == "__main__":
    app.run(main)
