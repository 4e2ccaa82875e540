"""What does not move has no gradient, no place in the state, and stays as it is; what moves learns
alike on any mesh.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from errors import UserError
from model import parameters
from model.config import ModelConfig
from model.decoder import Decoder
from model.latent_config import LatentConfig
from model.moe_config import MoeConfig
from sharding.config import AXES, MeshConfig
from sharding.means import means
from tests.jaxprs import equations
from tests.training.sharded import MODEL, OPTIMIZER, ROWS, batch, host, mesh_of, placed
from training import muon
from training.config import OptimizerConfig, TrainConfig
from training.fields import flat
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import (
    NOTHING,
    Fixed,
    TrainState,
    abstract_fixed,
    abstract_params,
    abstract_state,
    shardings_of,
    started,
)
from training.step import Step, gradients, make_step
from training.tuning import ALL, Moving, TuningConfig, moving

LORA, DORA = TuningConfig("lora", rank=3), TuningConfig("dora", rank=3)
SOME = TuningConfig(moving=("final_norm.scale", "blocks.mlp.*"))
FEW = 4  # steps
SLOW = pytest.mark.slow


class Tuned(NamedTuple):
    mesh: Any
    outline: Decoder
    moves: Moving
    state: TrainState
    fixed: Fixed
    step: Step


def begin(
    tuning: TuningConfig,
    layout: MeshConfig | None = None,
    model: ModelConfig = MODEL,
    accumulation: int = 1,
    optimizer: OptimizerConfig = OPTIMIZER,
) -> Tuned:
    """A run that starts from the parameters of seed 0."""
    layout = layout or MeshConfig(data=1)
    mesh = mesh_of(**{axis: getattr(layout, axis) for axis in AXES})
    config = dataclasses.replace(model, adapter=tuning.adapter(model))
    how = means(mesh, config, layout)
    outline, plain = (parameters.outline(one, how) for one in (config, model))
    moves = moving(tuning, outline)
    where = shardings_of(abstract_params(plain, mesh))
    base = jax.jit(lambda: parameters.initialize(model, 0, how), out_shardings=where)()
    tx = make_optimizer(optimizer, 20, outline, mesh, moves)
    abstract = abstract_state(tx, outline, mesh, moves)
    of_fixed = abstract_fixed(outline, mesh, moves)
    fixed = Fixed(jax.tree.map(lambda x, like: x.astype(like.dtype), moves.fixed(base), of_fixed))
    params = moves.of(base)
    state = jax.jit(
        lambda params, fixed: started(outline, tx, 1, moves, params, fixed),
        out_shardings=shardings_of(abstract),
    )(params, fixed.params)
    train = TrainConfig(steps=20, batch_size=ROWS, accumulation=accumulation, z_loss=1e-3)
    schedule = learning_rate(optimizer, 20)
    step = make_step(outline, tx, schedule, train, mesh, abstract, Fixed(of_fixed))
    return Tuned(mesh, outline, moves, state, fixed, step)


@functools.cache
def trained(tuning: TuningConfig, layout: MeshConfig | None = None, **how: Any) -> Any:
    """Metrics of the first steps, and the parameters that moved, where they lie."""
    run = begin(tuning, layout, **how)
    state, metrics = run.state, []
    for index in range(FEW):
        state, values = run.step(state, run.fixed, placed(run.mesh, index))
        metrics.append(host(values))
    return metrics, host(state.params)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tuning", "layout", "optimizer"),
    [
        (LORA, MeshConfig(data=2, fsdp=2, tensor=2), OPTIMIZER),
        pytest.param(DORA, MeshConfig(data=2, fsdp=2, tensor=2), OPTIMIZER, marks=SLOW),
        pytest.param(SOME, MeshConfig(data=2, fsdp=2, tensor=2), OPTIMIZER, marks=SLOW),
        pytest.param(LORA, MeshConfig(data=1, context=2, tensor=2, fsdp=2), OPTIMIZER, marks=SLOW),
        pytest.param(
            LORA, MeshConfig(data=1, pipeline=2, microbatches=2, fsdp=2), OPTIMIZER, marks=SLOW
        ),
        pytest.param(
            DORA,
            MeshConfig(data=2, fsdp=2, tensor=2),
            dataclasses.replace(OPTIMIZER, name="muon"),
            marks=SLOW,
        ),
    ],
    ids=["lora", "dora", "some", "lora over context", "lora in stages", "dora by muon"],
)
def test_a_mesh_learns_as_one_device_does(tuning, layout, optimizer):
    metrics, params = trained(tuning, layout, optimizer=optimizer)
    metrics_one, params_one = trained(tuning, optimizer=optimizer)
    for values, one in zip(metrics, metrics_one, strict=True):
        for name, value in values.items():
            np.testing.assert_allclose(value, one[name], rtol=5e-5, atol=1e-7, err_msg=name)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-4), params, params_one
    )


@SLOW
def test_layers_in_another_order_learn_alike():
    """Four layers in two stages of two rounds lie as 0, 2, 1, 3."""
    model = dataclasses.replace(MODEL, num_layers=4)
    layout = MeshConfig(data=1, pipeline=2, rounds=2, microbatches=2)
    metrics, params = trained(LORA, layout, model=model)
    metrics_one, params_one = trained(LORA, model=model)
    for values, one in zip(metrics, metrics_one, strict=True):
        np.testing.assert_allclose(values["loss"], one["loss"], rtol=2e-5)
    a, b = (flat(p)["blocks.mlp.up_adapter.b"] for p in (params, params_one))
    np.testing.assert_allclose(a, b[[0, 2, 1, 3]], rtol=0, atol=2e-4)


@pytest.mark.parametrize("tuning", [pytest.param(one, marks=SLOW) for one in (LORA, DORA)])
def test_accumulation_is_the_large_batch(tuning):
    metrics, _ = trained(tuning)
    more, _ = trained(tuning, accumulation=2)
    for values, one in zip(more, metrics, strict=True):
        for name, value in values.items():
            np.testing.assert_allclose(value, one[name], rtol=2e-5, atol=1e-7, err_msg=name)


def products(tuning: TuningConfig, model: ModelConfig = MODEL) -> tuple[int, set[int]]:
    """How many products of matrices gradients take, and how large their results are."""
    run = begin(tuning, model=model)

    def of(params: Any, fixed: Fixed) -> Any:
        some: Any = batch(0)
        return gradients(run.outline, params, some, 1, 1e-3, run.mesh, fixed)

    jaxpr = jax.make_jaxpr(of)(run.state.params, run.fixed)
    found = list(equations(jaxpr, "dot_general"))
    return len(found), {math.prod(one.outvars[0].aval.shape) for one in found}


def test_no_gradient_of_a_frozen_weight_is_computed():
    """Of each adapter there are two products forward, and four back; of each weight the one that
    gives its gradient is not there, and of the table neither.
    """
    weights = {32 * 32, 32 * 64, 128 * 32}
    every, sizes = products(TuningConfig())
    assert weights <= sizes
    lora, sizes = products(LORA)
    assert not weights & sizes
    assert lora - every == 7 * 6 - 8
    some, sizes = products(SOME)
    assert weights & sizes == {32 * 64}  # those of the MLP move
    assert some - every == -4 - 1


@pytest.mark.slow
def test_the_compiled_step_holds_neither_gradient_nor_state_of_what_stays():
    model = dataclasses.replace(MODEL, embed_dim=256, head_dim=32, mlp_dim=1024)

    def bytes_of(tree: Any) -> int:
        return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))

    def memory(run: Tuned) -> Any:
        step: Any = run.step
        return step.lower(run.state, run.fixed, placed(run.mesh, 0)).compile().memory_analysis()

    every, lora = begin(TuningConfig(), model=model), begin(LORA, model=model)
    whole, mine = memory(every), memory(lora)
    moved, frozen = bytes_of(lora.state.params), bytes_of(lora.fixed)
    assert frozen == bytes_of(every.state.params) and moved < 0.05 * frozen
    # The state is Adam's two moments beside what moves, and takes its own place.
    assert bytes_of(lora.state.opt_state) < 2 * moved + 64
    assert mine.alias_size_in_bytes < 3 * moved + 128
    fewer = whole.argument_size_in_bytes - mine.argument_size_in_bytes
    assert abs(fewer - (2 * frozen - 3 * moved)) < 64
    # Gradients of all weights of the blocks live at once at the end of the backward pass.
    blocks = bytes_of(lora.fixed.params["blocks"])
    assert whole.temp_size_in_bytes - mine.temp_size_in_bytes > 0.9 * blocks


@pytest.mark.slow
def test_what_stays_is_computed_with_as_it_would_be_cast():
    """In bfloat16 the step is given matrices in it, and norms in float32."""
    model = dataclasses.replace(MODEL, dtype="bfloat16", qk_norm=True)
    run = begin(LORA, model=model)
    dtypes = {path: str(leaf.dtype) for path, leaf in flat(run.fixed.params).items()}
    assert {path for path, dtype in dtypes.items() if dtype == "float32"} == {
        path for path in dtypes if path.endswith("scale")
    }
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(run.state.params)} == {"float32"}
    _, metrics = run.step(run.state, run.fixed, placed(run.mesh, 0))
    full = begin(TuningConfig(), model=model)
    _, expected = full.step(full.state, full.fixed, placed(full.mesh, 0))
    assert float(metrics["loss"]) == float(expected["loss"])  # the same bits


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["muon", *(pytest.param(name, marks=SLOW) for name in ("adafactor", "lion"))]
)
def test_optimizers_of_what_moves_alone(name):
    optimizer = dataclasses.replace(OPTIMIZER, name=name, learning_rate=3e-3)
    run = begin(DORA, optimizer=optimizer)
    state, first = run.step(run.state, run.fixed, placed(run.mesh, 0))
    for _ in range(5):
        state, last = run.step(state, run.fixed, placed(run.mesh, 0))
    assert last["loss"] < first["loss"]


def test_matrices_of_adapters():
    """Muon's: from the weight's inputs to the rank, and from there to its outputs."""
    run = begin(DORA)
    found = muon.matrices(run.moves.of(parameters.logical_axes(run.outline)))
    attention, mlp = found["blocks"]["attention"], found["blocks"]["mlp"]
    assert attention["query_adapter"] == {
        "a": muon.Matrix((0,), (1,), (2,)),
        "b": muon.Matrix((0,), (1,), (2, 3)),
        "magnitude": None,
    }
    assert attention["out_adapter"]["a"] == muon.Matrix((0,), (1, 2), (3,))
    assert mlp["down_adapter"]["b"] == muon.Matrix((0,), (1,), (2,))


@SLOW
def test_a_bias_that_balances_stays_with_the_rest():
    moe = MoeConfig(num_experts=4, expert_mlp_dim=16, balance="bias", bias_rate=0.1)
    run = begin(LORA, model=dataclasses.replace(MODEL, moe=moe))
    names = {path.split(".")[1] for path in flat(run.state.params)}
    assert names == {"attention"}
    _, metrics = run.step(run.state, run.fixed, placed(run.mesh, 0))
    assert metrics["expert_load_max"] > 1


def test_names_by_pattern():
    outline = parameters.outline(MODEL)
    found = moving(TuningConfig(moving=("*norm.scale", "blocks.mlp.u*")), outline)
    assert found.names == {
        "final_norm.scale",
        "blocks.attention_norm.scale",
        "blocks.mlp_norm.scale",
        "blocks.mlp.up",
    }
    tree = parameters.shapes(outline)
    both = parameters.joined(found.of(tree), found.fixed(tree))
    assert both == tree
    assert ALL.of(tree) == tree and ALL.fixed(tree) == {}
    with pytest.raises(UserError, match=r"config.tuning.moving=.*'block.*' is the name of no"):
        moving(TuningConfig(moving=("block.*",)), outline)


def test_targets_that_are_not_named_are_all_that_the_model_has():
    def targets(**changes: Any) -> tuple[str, ...]:
        return LORA.adapter(dataclasses.replace(MODEL, **changes)).targets

    assert targets() == ("query", "key", "value", "out", "gate", "up", "down")
    assert targets(mlp="gelu") == ("query", "key", "value", "out", "up", "down")
    experts = MoeConfig(num_experts=4, expert_mlp_dim=16)
    assert targets(moe=experts) == ("query", "key", "value", "out")
    latent = LatentConfig(kv_rank=8, rope_dim=2, value_dim=4)
    assert targets(latent=latent) == ("gate", "up", "down")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (dict(rank=0), "rank=0: must be at least 1"),
        (dict(alpha=-1.0), "alpha=-1.0: must be positive"),
        (dict(targets=("q",)), r"targets=\['q'\]: choose of query, key"),
        (dict(dropout=0.1), "dropout=0.1: adapters have none"),
        (dict(method="lora", moving=("x",)), r"moving=\['x'\]: with method='lora' adapters move"),
    ],
)
def test_what_cannot_be(values, says):
    with pytest.raises(ValueError, match=says):
        TuningConfig(**values)


def test_nothing_is_fixed_where_all_moves():
    assert jax.tree.leaves(NOTHING) == [] and TuningConfig().everything
