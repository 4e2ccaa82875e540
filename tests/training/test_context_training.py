"""Meshes with `context` train as one device does, in both forms of attention."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from model.config import ModelConfig
from model.generation import Generator, Sampling
from sharding.config import MeshConfig
from sharding.table import sharding
from tests.training.sharded import GROUPED, MODEL, begin, host, mesh_of, placed
from training.config import TrainConfig
from training.state import NOTHING

SLOW = pytest.mark.slow
MODELS = {
    "plain": MODEL,
    "grouped": GROUPED,
    "kept": dataclasses.replace(GROUPED, remat="save_attention"),
    "learned": dataclasses.replace(
        MODEL, positions="learned", sliding_window=5, attention_softcap=3.0
    ),
}


@functools.cache
def trained(sizes: tuple[tuple[str, int], ...], model: ModelConfig, form: Any) -> Any:
    """Metrics of three steps, and the state after the first: two microbatches each."""
    train = TrainConfig(steps=20, batch_size=16, z_loss=1e-3, accumulation=2)
    run = begin(mesh_of(**dict(sizes)), model, train, layout=MeshConfig(context_attention=form))
    state, metrics, first = run.state, [], None
    for index in range(3):
        state, values = run.step(state, NOTHING, placed(run.mesh, index))
        metrics.append(host(values))
        first = host(state) if first is None else first
    return metrics, first


@pytest.mark.parametrize(
    ("sizes", "model", "form"),
    [
        pytest.param(dict(context=8), "plain", "ring", marks=SLOW),  # chunks of one token
        pytest.param(dict(context=2, fsdp=2, tensor=2), "kept", "ring", marks=SLOW),
        pytest.param(dict(context=2), "learned", "gather", marks=SLOW),
        pytest.param(dict(context=2), "learned", "ring", marks=SLOW),
        pytest.param(dict(context=4), "grouped", "ring", marks=SLOW),
        pytest.param(dict(context=8), "kept", "gather", marks=SLOW),
        pytest.param(dict(context=2, fsdp=2, tensor=2), "learned", "gather", marks=SLOW),
        pytest.param(dict(context=4, tensor=2), "learned", "ring", marks=SLOW),
        pytest.param(dict(context=2, tensor=4), "grouped", "gather", marks=SLOW),
    ],
    ids=str,
)
def test_same_as_one_device(sizes: dict[str, int], model: str, form: Any) -> None:
    metrics, first = trained(tuple(sizes.items()), MODELS[model], form)
    metrics_one, first_one = trained((), MODELS[model], "auto")
    # After one step Adam's moments are the gradient and its square.
    leaves = jax.tree_util.tree_leaves_with_path(first.opt_state)
    for (path, x), y in zip(leaves, jax.tree.leaves(first_one.opt_state), strict=True):
        atol = 1e-5 * float(np.abs(y).max())
        np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=str(path))
    for values, one in zip(metrics, metrics_one, strict=True):
        assert values["tokens"] == one["tokens"] and values["bytes"] == one["bytes"]
        for name, value in values.items():
            np.testing.assert_allclose(value, one[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_samples_are_drawn_on_the_mesh_of_the_run() -> None:
    """A token at a time has no order; the cache lies along `context`, as the text has it."""

    def drawn(**sizes: int) -> list[int]:
        run = begin(mesh_of(**sizes), dataclasses.replace(MODEL, init_std=0.3))
        generator = Generator(run.outline, run.state.params, Sampling(), sharding(run.mesh, ()))
        return list(generator([1, 2, 3, 4, 5], max_tokens=10, seed=3))

    assert drawn(context=2) == drawn()
