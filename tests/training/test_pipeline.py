"""Layers in stages train as on one device, and are saved as on one device."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from checkpointing.checkpoints import Checkpoints
from data.config import DataConfig
from errors import UserError
from evaluation.decoding import mover, to_decode
from evaluation.perplexity import make_scorer
from model import parameters
from model.config import ModelConfig
from model.generation import Generator, Sampling
from planning.layout import check
from planning.program import read
from planning.topology import parse
from sharding.config import AXES, MeshConfig
from sharding.layer_order import LayerOrder
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.schedule import order
from sharding.table import sharding
from tests.training.sharded import (
    LENGTH,
    MODEL,
    OPTIMIZER,
    ROWS,
    STEPS,
    Run,
    begin,
    host,
    mesh_of,
    placed,
)
from training.assembly import assemble, lowered
from training.config import OptimizerConfig, RunConfig, TrainConfig
from training.optimizer import make_optimizer
from training.state import NOTHING, abstract_params, shardings_of, stacked

FOUR = dataclasses.replace(MODEL, num_layers=4)
EIGHT = dataclasses.replace(MODEL, num_layers=8)
OTHER = dataclasses.replace(
    FOUR,
    norm="layernorm",
    positions="learned",
    mlp="gelu",
    bias=True,
    qk_norm=True,
    tie_embeddings=False,
    attention_softcap=5.0,
    logit_softcap=10.0,
    sliding_window=5,
    num_kv_heads=2,
)
ONE = MeshConfig(data=1)
FEW = 3  # steps


def start(
    layout: MeshConfig,
    model: ModelConfig,
    accumulation: int = 1,
    optimizer: OptimizerConfig = OPTIMIZER,
) -> Run:
    train = TrainConfig(steps=STEPS, batch_size=ROWS, accumulation=accumulation, z_loss=1e-3)
    mesh = mesh_of(**{axis: getattr(layout, axis) for axis in AXES})
    return begin(mesh, model, train, optimizer, layout)


def by_depth(run: Run, layout: MeshConfig, tree: Any, is_stacked: Any) -> Any:
    """Host arrays with layers in the order of depth, by the order that the model was given."""

    def one(x: np.ndarray, is_stacked: bool) -> np.ndarray:
        if not is_stacked:
            return x
        lie = order(layout.pipeline, layout.rounds, len(x))
        return x[np.argsort(lie)]

    return jax.tree.map(one, host(tree), is_stacked)


def of_state(run: Run, model: ModelConfig, optimizer: OptimizerConfig = OPTIMIZER) -> Any:
    outline = parameters.outline(model, means(run.mesh, model))
    return stacked(make_optimizer(optimizer, STEPS, outline, run.mesh), outline)


@functools.cache
def trained(
    layout: MeshConfig, model: ModelConfig, accumulation: int = 1
) -> tuple[Any, Any, list[Any], Any]:
    """The fresh state, that after a step, the metrics of every step, and the last state."""
    run = start(layout, model, accumulation)
    of = of_state(run, model)
    fresh = by_depth(run, layout, run.state, of)
    state, metrics, first = run.state, [], None
    for index in range(FEW):
        state, values = run.step(state, NOTHING, placed(run.mesh, index))
        metrics.append(host(values))
        first = by_depth(run, layout, state, of) if first is None else first
    return fresh, first, metrics, by_depth(run, layout, state, of)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("layout", "model", "accumulation"),
    [
        pytest.param(MeshConfig(data=1, pipeline=2), FOUR, 1, marks=SLOW),
        (MeshConfig(data=1, pipeline=4, rounds=2, microbatches=8), EIGHT, 1),
        pytest.param(
            MeshConfig(data=2, tensor=2, pipeline=2, rounds=2),
            dataclasses.replace(FOUR, remat="full"),
            2,
            marks=SLOW,
        ),
        pytest.param(MeshConfig(data=1, fsdp=2, pipeline=2, microbatches=2), OTHER, 1, marks=SLOW),
        pytest.param(MeshConfig(data=2, pipeline=4, microbatches=2), FOUR, 1, marks=SLOW),
        pytest.param(
            MeshConfig(data=1, fsdp=2, tensor=2, pipeline=2),
            dataclasses.replace(FOUR, remat="save_attention", scan_unroll=2),
            4,
            marks=SLOW,
        ),
        pytest.param(
            MeshConfig(data=1, fsdp=2, tensor=2, pipeline=2, rounds=2),
            dataclasses.replace(OTHER, remat="save_dots"),
            1,
            marks=SLOW,
        ),
        pytest.param(MeshConfig(data=1, pipeline=8), EIGHT, 1, marks=SLOW),
        pytest.param(
            MeshConfig(data=1, context=2, tensor=2, pipeline=2, rounds=2),
            dataclasses.replace(FOUR, remat="save_attention"),
            2,
            marks=SLOW,
        ),
        pytest.param(
            MeshConfig(data=1, context=4, pipeline=2, context_attention="gather"),
            OTHER,
            1,
            marks=SLOW,
        ),
    ],
)
def test_same_as_one_device(layout: MeshConfig, model: ModelConfig, accumulation: int) -> None:
    fresh, first, metrics, last = trained(layout, model, accumulation)
    fresh_one, first_one, metrics_one, last_one = trained(
        ONE, dataclasses.replace(model, remat="none", scan_unroll=1)
    )
    # The same draws; JAX 0.12 compiles what is made of them for parts of another size, by an ulp.
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-7),
        fresh.params,
        fresh_one.params,
    )
    # After one step Adam's moments are the gradient and its square.
    leaves = jax.tree_util.tree_leaves_with_path(first.opt_state)
    for (path, x), y in zip(leaves, jax.tree.leaves(first_one.opt_state), strict=True):
        atol = 1e-5 * float(np.abs(y).max())
        np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=str(path))
    # To a part of the learning rate: see test_sharded_training.py.
    for found, one in ((first, first_one), (last, last_one)):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-4),
            found.params,
            one.params,
        )
    for values, one in zip(metrics, metrics_one, strict=True):
        assert values.keys() == one.keys()
        for name, value in values.items():
            np.testing.assert_allclose(value, one[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.fixture(scope="module")
def in_rounds() -> tuple[MeshConfig, Run]:
    """Four stages of two rounds, with a state that is no longer fresh."""
    layout = MeshConfig(data=1, fsdp=2, pipeline=4, rounds=2, microbatches=4)
    run = start(layout, EIGHT)
    state, _ = run.step(run.state, NOTHING, placed(run.mesh, 0))
    return layout, run._replace(state=state)


def test_each_stage_has_its_layers_and_its_part_of_the_vocabulary(
    in_rounds: tuple[MeshConfig, Run],
) -> None:
    params = in_rounds[1].state.params
    assert params["blocks"]["mlp"]["up"].addressable_shards[0].data.shape == (2, 16, 64)
    assert params["embedding"].addressable_shards[0].data.shape == (32, 16)


def test_parameters_do_not_travel_from_stage_to_stage(in_rounds: tuple[MeshConfig, Run]) -> None:
    """Stages hand on microbatches; all rows are exchanged before the first stage and after the last
    one, each forward and backward, and in the head.
    """
    _, run = in_rounds
    compiled = run.step.lower(run.abstract, NOTHING, placed(run.mesh, 0)).compile()  # type: ignore[attr-defined]
    found = read(compiled, run.mesh).exchanges
    along = [e for e in found if "pipeline" in e.axes and e.sent > 1000]
    rows = ROWS // 2 * LENGTH * 32 * 4  # bytes of those of a device
    handed = [(e.kind, e.sent) for e in along if e.times == 2 * 4 + 3]
    assert handed == [("collective-permute", rows // 4)] * 2
    others = sorted((e.kind, round(e.sent / rows, 1)) for e in along if e.times == 1)
    assert others == [
        ("all-gather", 0.8),  # features in the head, and the gradient of the last stage's output
        ("all-gather", 0.8),
        ("all-reduce", 1.5),  # what was looked up, and its gradient
        ("all-reduce", 1.5),
        ("reduce-scatter", 0.8),  # the last stage's output, and features' gradient in the head
        ("reduce-scatter", 0.8),
    ]
    assert len(along) == 8


def test_a_checkpoint_is_that_of_one_device(
    in_rounds: tuple[MeshConfig, Run], tmp_path: Any
) -> None:
    """Both ways, to the bit; and back."""
    layout, run = in_rounds
    of = of_state(run, EIGHT)
    by = LayerOrder(run.mesh, layout.rounds, of)
    with Checkpoints(tmp_path, keep=3, order=by) as checkpoints:
        checkpoints.save(1, run.state, {})
        checkpoints.wait()
        again = checkpoints.state(1, run.abstract)
    jax.tree.map(np.testing.assert_array_equal, host(again), host(run.state))
    for leaf, like in zip(jax.tree.leaves(again), jax.tree.leaves(run.abstract), strict=True):
        assert leaf.sharding == like.sharding

    one = start(ONE, EIGHT)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        restored = checkpoints.state(1, one.abstract)
        expected = by_depth(run, layout, run.state, of)
        jax.tree.map(np.testing.assert_array_equal, host(restored), expected)
        stepped, _ = one.step(restored, NOTHING, placed(one.mesh, 1))
        checkpoints.save(2, stepped, {})
        checkpoints.wait()
    with Checkpoints(tmp_path, order=by) as checkpoints:
        back = checkpoints.state(2, run.abstract)
    jax.tree.map(np.testing.assert_array_equal, by_depth(run, layout, back, of), host(stepped))


@pytest.mark.parametrize("name", ["muon", "adafactor"])
def test_the_state_of_other_optimizers_is_told_by_layers(name: Any) -> None:
    """Of what it keeps of blocks, all that has layers; nothing of tables and of counts."""
    optimizer = dataclasses.replace(OPTIMIZER, name=name)
    run = start(ONE, EIGHT, optimizer=optimizer)
    of = of_state(run, EIGHT, optimizer)
    for (path, is_stacked), leaf in zip(
        jax.tree_util.tree_leaves_with_path(of), jax.tree.leaves(run.state), strict=True
    ):
        in_blocks = any(getattr(key, "key", None) == "blocks" for key in path)
        assert is_stacked == (in_blocks and leaf.shape[:1] == (8,)), path


@pytest.mark.slow
def test_samples_and_evaluation_see_the_layers_in_depth_order(
    in_rounds: tuple[MeshConfig, Run],
) -> None:
    layout, run = in_rounds
    outline = parameters.outline(EIGHT, means(run.mesh, EIGHT, layout))
    of = parameters.stacked(outline)
    values = by_depth(run, layout, run.state.params, of)
    mesh = mesh_of()
    one = parameters.outline(EIGHT, means(mesh, EIGHT))
    params = jax.device_put(values, shardings_of(abstract_params(one, mesh)))
    expected = make_scorer(one, mesh, shardings_of(params))(params, placed(mesh, 0))
    score = make_scorer(outline, run.mesh, shardings_of(run.state.params))
    found = score(run.state.params, placed(run.mesh, 0))
    for name, value in host(expected).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)

    def text(model: Any, params: Any, mesh: Any) -> list[int]:
        generator = Generator(model, params, Sampling(), sharding(mesh, ()))
        return list(generator([5, 6, 7], max_tokens=6, seed=2))

    decoding = to_decode(outline, run.state.params, run.mesh, layout.rounds)
    assert decoding[2].shape["pipeline"] == 1 and decoding[2].size == 8
    jax.tree.map(np.testing.assert_array_equal, host(decoding[1]), values)
    assert text(*decoding) == text(one, params, mesh)


def test_on_the_way_to_decode_no_device_has_more_than_its_part(
    in_rounds: tuple[MeshConfig, Run],
) -> None:
    layout, run = in_rounds
    outline, _, mesh = to_decode(run.outline, run.state.params, run.mesh, layout.rounds)
    where = shardings_of(abstract_params(outline, mesh))
    for x, to in zip(jax.tree.leaves(run.state.params), jax.tree.leaves(where), strict=True):
        if any(to.spec):
            compiled = mover(x, to).lower(x).compile()  # type: ignore[attr-defined]
            exchanges = read(compiled, run.mesh).exchanges
            assert exchanges and max(e.sent for e in exchanges) <= x.nbytes // 8


def test_what_cannot_be_is_said_before_anything_slow() -> None:
    """By planning.layout, with the keys that say it."""

    def says(text: str, devices: int, **values: Any) -> None:
        data = DataConfig(source="python_stdlib", sequence_length=LENGTH)
        train = TrainConfig(batch_size=ROWS)
        config = RunConfig(FOUR, data, MeshConfig(data=1, **values), train=train)
        with pytest.raises(UserError, match=f"^config.mesh: {text}"):
            check(config, devices)

    says(r"pipeline=3 does not divide 4, .* \(model.num_layers\)", 3, pipeline=3)
    rows = "32, the rows of evaluation.batch_size=32 that a device has"
    says(f"microbatches=5 does not divide {rows}", 2, pipeline=2, microbatches=5)
    says("rounds=2 would do nothing without stages", 1, rounds=2)


def test_compiled_for_tpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages hand on by collective-permute, and nothing is gathered along them."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    from jax.experimental import topologies

    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, "1")
    devices = topologies.get_topology_desc(**parse("v5e:2x4").libtpu()).devices
    model = dataclasses.replace(
        EIGHT,
        vocab_size=1024,
        embed_dim=256,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        mlp_dim=512,
        max_length=256,
        dtype="bfloat16",
        remat="full",
    )
    config = RunConfig(
        model,
        DataConfig(source="python_stdlib", sequence_length=256),
        MeshConfig(data=1, fsdp=2, pipeline=4, rounds=2),
        train=TrainConfig(batch_size=32),
    )
    mesh = make_mesh(config.mesh, devices)
    program = read(lowered(config, assemble(config, mesh)).compile(), mesh)
    along = [e for e in program.exchanges if "pipeline" in e.axes and e.sent > 64]
    handed = [e for e in along if e.times == 2 * 16 + 3]
    assert {(e.kind, e.sent) for e in handed} == {("collective-permute", 256 * 256 * 2)}
    assert len(handed) == 2
    # All that else goes along stages is of rows, or of what the head sums up.
    assert max(e.sent for e in along if e.times == 1) <= 2 * 16 * 256 * 256 * 4
    state = sum(x.size for x in jax.tree.leaves(assemble(config, mesh).state)) * 4
    assert program.memory.arguments < 1.2 * state / 8
    # A layer's weights, kept in bfloat16 of each of the 35 iterations, would be 46 MB.
    assert program.memory.temporaries < 10e6
