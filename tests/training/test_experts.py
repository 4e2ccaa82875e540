"""Training of a mixture of experts: its losses, the bias that balances it, meshes as one device."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from checkpointing.checkpoints import Checkpoints
from evaluation.perplexity import make_scorer
from model import parameters
from model.config import ModelConfig
from model.moe import Routing
from model.moe_config import MoeConfig
from sharding.config import AXES, MeshConfig
from sharding.schedule import order
from tests.training.sharded import (
    MODEL,
    OPTIMIZER,
    ROWS,
    STEPS,
    Run,
    batch,
    begin,
    host,
    mesh_of,
    placed,
)
from tests.training.test_optimizer import orthogonal_by_hand
from training import balance as balancing
from training.balance import balance, nudged
from training.config import OptimizerConfig, TrainConfig
from training.loss import batch_sums
from training.state import NOTHING, shardings_of
from training.step import gradients

MOE = dataclasses.replace(
    MODEL,
    num_layers=2,
    moe=MoeConfig(
        num_experts=8,
        expert_mlp_dim=32,
        shared_experts=1,
        first_dense=1,
        scoring="sigmoid",
        route_scale=2.0,
        balance="bias",
        balance_weight=0.02,
        bias_rate=0.01,
        router_z_weight=1e-3,
    ),
)
BIAS = ("blocks", "mlp", "balance_bias")


def run_of(accumulation: int = 1, optimizer: Any = OPTIMIZER, **sizes: int) -> Run:
    train = TrainConfig(steps=STEPS, batch_size=ROWS, z_loss=1e-3, accumulation=accumulation)
    return begin(mesh_of(**sizes), MOE, train, optimizer)


def bias(params: Any) -> np.ndarray:
    return np.asarray(functools.reduce(lambda tree, key: tree[key], BIAS, params))


def some_routing() -> tuple[Routing, Any]:
    """Two layers of three rows, of which one has no target and one has padding."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 5, (2, 3, 8)).astype(np.int32)
    weights = np.ones((3, 6), np.float32)
    weights[1], weights[2, 3:] = 0, 0
    scores, z = rng.random((2, 3, 8)), rng.random((2, 3))
    return Routing(*map(jnp.asarray, (chosen, scores, z))), weights


def test_the_losses_against_numpy() -> None:
    routing, weights = some_routing()
    objective, sums = balance(MOE, routing, weights)
    chosen, scores, z = (np.asarray(x, np.float64) for x in routing)
    expected = 0.0
    for layer in range(2):
        for row in (0, 2):
            tokens = chosen[layer, row].sum() / 2  # each has chosen two
            f = chosen[layer, row] / tokens
            expected += tokens * 8 / 2 * (f * (scores[layer, row] / tokens)).sum()
    z_sum = z[:, [0, 2]].sum()
    np.testing.assert_allclose(sums["balance_loss"], expected / 2, rtol=1e-5)
    np.testing.assert_allclose(sums["router_z_loss"], z_sum / 2, rtol=1e-5)
    np.testing.assert_allclose(objective, 0.02 * expected + 1e-3 * z_sum, rtol=1e-5)
    np.testing.assert_array_equal(sums[balancing.LOAD], chosen[:, [0, 2]].sum(1))


def test_equal_experts_have_a_loss_of_one_a_token() -> None:
    tokens, even = 12, np.full((1, 2, 8), 3, np.int32)
    routing = Routing(jnp.asarray(even), jnp.full((1, 2, 8), tokens / 8), jnp.zeros((1, 2)))
    _, sums = balance(MOE, routing, jnp.ones((2, tokens)))
    np.testing.assert_allclose(sums["balance_loss"], 2 * tokens, rtol=1e-6)


@functools.cache
def params() -> Any:
    return run_of().state.params


@functools.cache
def accumulated(microbatches: int) -> Any:
    outline = parameters.outline(MOE)
    run = jax.jit(lambda p, b: gradients(outline, p, b, microbatches, 1e-3, mesh_of()))
    return host(run(params(), batch(0)))


SLOW = pytest.mark.slow  # eight devices on two cores


@SLOW
@pytest.mark.parametrize("microbatches", [2, 4])
def test_accumulation_is_the_large_batch(microbatches: int) -> None:
    """The losses of the router too, however unequally padding falls on the microbatches."""
    found, whole = accumulated(microbatches), accumulated(1)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[1][balancing.LOAD], whole[1][balancing.LOAD])
    assert whole[1][balancing.LOAD].sum() == 2 * batch(0)["weights"].sum()


def test_rows_that_are_left_out_have_no_part_in_it() -> None:
    """Neither in the loss nor in the balance: config.data.skip takes their weights."""
    rows = {key: value.copy() for key, value in batch(0).items()}
    rows["weights"][[0, 2]] = rows["bytes"][[0, 2]] = 0
    others = {key: np.delete(value, [0, 2], axis=0) for key, value in rows.items()}
    outline = parameters.outline(MOE)

    def found(rows: Any) -> Any:
        return jax.jit(lambda p: gradients(outline, p, rows, 1, 1e-3, mesh_of()))(params())

    for a, b in zip(jax.tree.leaves(found(rows)), jax.tree.leaves(found(others)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_evaluation_is_of_the_loss_alone() -> None:
    run = run_of()
    outline = parameters.outline(MOE)
    score = make_scorer(outline, run.mesh, shardings_of(run.abstract.params))
    sums = score(run.state.params, placed(run.mesh, 0))
    assert set(sums) == {"loss", "tokens", "bytes"}
    rows: Any = batch(0)
    whole = jax.jit(lambda p: batch_sums(parameters.bind(outline, p), rows, run.mesh, 1e-3))
    objective, of_all = whole(run.state.params)
    np.testing.assert_allclose(sums["loss"], of_all["loss"], rtol=1e-6)
    expected = of_all["loss"] + 1e-3 * of_all["z_loss"]  # and of one layer
    expected += 0.02 * of_all["balance_loss"] + 1e-3 * of_all["router_z_loss"]
    np.testing.assert_allclose(objective, expected, rtol=1e-6)


def test_biases_go_up_where_tokens_are_missing() -> None:
    before = {"blocks": {"mlp": {"balance_bias": jnp.full((2, 4), 0.5), "router": jnp.ones(3)}}}
    load = jnp.asarray([[0, 2, 4, 2], [1, 1, 1, 1]], jnp.int32)
    config = dataclasses.replace(MOE, moe=dataclasses.replace(MOE.moe, bias_rate=0.25))
    after = nudged(parameters.outline(config), before, load)
    np.testing.assert_array_equal(bias(after), [[0.75, 0.5, 0.25, 0.5], [0.5] * 4])
    np.testing.assert_array_equal(after["blocks"]["mlp"]["router"], 1)
    by_loss = dataclasses.replace(MOE, moe=dataclasses.replace(MOE.moe, balance="loss"))
    assert nudged(parameters.outline(by_loss), before, load) is before


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["muon", *(pytest.param(name, marks=SLOW) for name in ("adamw", "adafactor", "lion"))]
)
def test_no_optimizer_moves_the_biases(name: Any) -> None:
    """One step from biases that are not zero, with weight decay: they move by the rate alone."""
    optimizer = dataclasses.replace(OPTIMIZER, name=name, weight_decay=0.5)
    run = run_of(optimizer=optimizer)
    start = np.linspace(-0.05, 0.05, 8, dtype=np.float32)[None]
    state = run.state
    state.params["blocks"]["mlp"]["balance_bias"] = jnp.asarray(start)
    state, metrics = run.step(state, NOTHING, placed(run.mesh, 0))
    moved = bias(state.params) - start
    np.testing.assert_allclose(np.abs(moved)[moved != 0], 0.01, rtol=1e-4)
    assert (moved > 0).any() and (moved < 0).any()
    assert metrics["expert_load_max"] > 1 > metrics["expert_load_min"]


@pytest.mark.slow
def test_muon_makes_each_expert_orthogonal() -> None:
    """One step without momentum or decay; the router is a matrix, too."""
    optimizer = OptimizerConfig(
        name="muon", learning_rate=1e-2, warmup_steps=0, momentum=0.0, weight_decay=0, clip_norm=0
    )
    run = run_of(optimizer=optimizer)
    before = host(run.state.params)["blocks"]["mlp"]
    grads = accumulated(1)[0]["blocks"]["mlp"]
    state, _ = run.step(run.state, NOTHING, placed(run.mesh, 0))
    after = host(state.params)["blocks"]["mlp"]

    def compare(change: np.ndarray, gradient: np.ndarray) -> None:
        expected = 0.2 * np.sqrt(max(gradient.shape)) * orthogonal_by_hand(gradient)
        np.testing.assert_allclose(change / -1e-2, expected, rtol=0, atol=2e-3)

    for name in ("up", "gate", "down"):
        for expert in range(8):
            compare((after[name] - before[name])[0, expert], grads[name][0, expert])
    compare((after["router"] - before["router"])[0], grads["router"][0])


STAGED = dataclasses.replace(
    MOE, num_layers=4, moe=dataclasses.replace(MOE.moe, first_dense=0, shared_experts=0)
)
"""Of which layers can be put into stages."""


@functools.cache
def trained(model: ModelConfig, accumulation: int, layout: MeshConfig) -> tuple[list[Any], Any]:
    """The metrics of some steps, and the state after the last; biases in the order of depth."""
    train = TrainConfig(steps=STEPS, batch_size=ROWS, z_loss=1e-3, accumulation=accumulation)
    run = begin(
        mesh_of(**{axis: getattr(layout, axis) for axis in AXES}), model, train, OPTIMIZER, layout
    )
    state, metrics = run.state, []
    for index in range(6):
        state, values = run.step(state, NOTHING, placed(run.mesh, index))
        metrics.append(host(values))
    state = host(state)
    if layout.pipeline > 1:
        where = np.argsort(order(layout.pipeline, layout.rounds, model.num_layers))
        state.params["blocks"] = jax.tree.map(lambda w: w[where], state.params["blocks"])
    return metrics, state


@pytest.mark.parametrize(
    ("accumulation", "sizes"),
    [
        pytest.param(1, dict(expert=8), marks=SLOW),
        pytest.param(2, dict(expert=2, fsdp=2, tensor=2), marks=SLOW),
        pytest.param(1, dict(expert=2, context=2, fsdp=2), marks=SLOW),
        pytest.param(1, dict(expert=4, pipeline=2, rounds=2, microbatches=2), marks=SLOW),
        pytest.param(1, dict(data=2, fsdp=2, tensor=2), marks=SLOW),
        pytest.param(1, dict(expert=2, context=2, tensor=2), marks=SLOW),
        pytest.param(2, dict(expert=2, pipeline=2, fsdp=2), marks=SLOW),
        pytest.param(1, dict(pipeline=2, context=2, expert=2), marks=SLOW),
    ],
    ids=str,
)
def test_same_as_one_device(accumulation: int, sizes: dict[str, Any]) -> None:
    model = STAGED if "pipeline" in sizes else MOE
    metrics, state = trained(model, accumulation, MeshConfig(**{"data": 1} | sizes))
    metrics_one, state_one = trained(model, 1, MeshConfig(data=1))
    for values, one in zip(metrics, metrics_one, strict=True):
        assert values.keys() == one.keys()
        for name, value in values.items():
            np.testing.assert_allclose(value, one[name], rtol=1e-5, atol=1e-7, err_msg=name)
    # To the bit: what each expert had is counted.
    np.testing.assert_array_equal(bias(state.params), bias(state_one.params))
    assert np.abs(bias(state.params)).max() > 0
    # Adam divides by the gradient's own size, and so blows up rounding where that is near zero (see
    # test_sharded_training.py): the largest difference here was 1.2e-4, in one of 8,192 numbers.
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(state.params),
        jax.tree.leaves(state_one.params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=0, atol=4e-4, err_msg=str(path))


def test_experts_are_born_apart() -> None:
    params = run_of(expert=4, fsdp=2).state.params["blocks"]["mlp"]
    assert params["up"].addressable_shards[0].data.shape == (1, 2, 16, 32)
    assert params["down"].addressable_shards[0].data.shape == (1, 2, 16, 32)
    assert params["shared"]["up"].addressable_shards[0].data.shape == (1, 4, 32)


@SLOW
def test_a_resumed_run_is_the_same_to_the_bit(tmp_path: Path) -> None:
    run = run_of(expert=2)

    def steps(state: Any, first: int, last: int) -> Any:
        for index in range(first, last):
            state, _ = run.step(state, NOTHING, placed(run.mesh, index))
        return state

    with Checkpoints(tmp_path, 1, 60.0) as checkpoints:
        state = steps(run.state, 0, 3)
        assert np.abs(bias(state.params)).max() > 0
        checkpoints.save(3, state, {})
        checkpoints.wait()
        whole = host(steps(state, 3, 6))
        resumed = host(steps(checkpoints.state(3, run.abstract), 3, 6))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
