"""Runs to plan: Llama 3 8B, whose numbers are worked out by hand, and a small one."""

import dataclasses
import functools
from typing import Any

import numpy as np

from data.config import DataConfig
from model import parameters
from model.config import ModelConfig
from planning.analytic import layout
from planning.analytic.layout import Layout
from planning.topology import parse
from sharding.config import MeshConfig
from sharding.means import means
from sharding.placement import abstract_rows
from tests.training.sharded import mesh_of
from training.config import OptimizerConfig, RunConfig, TrainConfig
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import NOTHING, abstract_state
from training.step import make_step

LLAMA = ModelConfig(
    vocab_size=128256,
    num_layers=32,
    embed_dim=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=14336,
    max_length=8192,
    tie_embeddings=False,
    dtype="bfloat16",
    remat="full",
    logits_mb=512,
)
SMALL = ModelConfig(
    vocab_size=256,
    num_layers=3,
    embed_dim=64,
    num_heads=8,
    num_kv_heads=8,
    head_dim=16,
    mlp_dim=160,
    max_length=32,
    tie_embeddings=False,
    remat="full",
)


def run_of(
    model: ModelConfig,
    rows: int,
    length: int,
    accumulation: int = 1,
    optimizer: str = "adamw",
    **mesh: Any,
) -> RunConfig:
    options: Any = {"name": optimizer}
    return RunConfig(
        model=model,
        data=DataConfig(source="python_stdlib", sequence_length=length),
        mesh=MeshConfig(**{"data": 1, "fsdp": -1, **mesh}),
        optimizer=OptimizerConfig(**options),
        train=TrainConfig(batch_size=rows, accumulation=accumulation),
    )


def llama(topology: str, rows: int, slices: int = 1, **options: Any) -> Layout:
    """Llama 3 8B at 8,192 tokens; `rows` over all devices; `kinds` are of the model."""
    model = dataclasses.replace(LLAMA, **options.pop("kinds", {}))
    return layout.of(run_of(model, rows, 8192, **options), parse(topology, slices))


@functools.cache
def compiled(policy: str, accumulation: int, sizes: tuple[int, int, int]) -> tuple[RunConfig, Any]:
    """A step of a small model on 8 simulated devices: the run, and its compiled program."""
    data, fsdp, tensor = sizes
    length = 512
    kinds: Any = dict(remat=policy, embed_dim=128, mlp_dim=512, num_layers=6)
    model = dataclasses.replace(SMALL, max_length=length, logits_mb=1, **kinds)
    run = run_of(
        model, 16 * accumulation, length, accumulation, data=data, fsdp=fsdp, tensor=tensor
    )
    mesh = mesh_of(*sizes)
    outline = parameters.outline(model, means(mesh, model))
    tx = make_optimizer(run.optimizer, run.train.steps, outline, mesh)
    state, schedule = abstract_state(tx, outline, mesh), learning_rate(run.optimizer, 10)
    step: Any = make_step(outline, tx, schedule, run.train, mesh, state)
    names = ("tokens", "targets", "segments", "positions", "bytes")
    some = {name: np.zeros((1, length), np.int32) for name in names}
    some["weights"] = np.zeros((1, length), np.float32)
    rows: Any = abstract_rows(mesh, run.train.batch_size, some)
    return run, step.lower(state, NOTHING, rows).compile()
