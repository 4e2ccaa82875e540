"""Experts on every mesh, against one device that has all of them."""

import dataclasses
import functools
import re
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import grouped, moe
from model.config import ModelConfig, Remat
from model.kernels import megablox
from model.layers import ExpertWeights
from model.mlp import ACTIVATIONS
from model.moe_config import MoeConfig
from sharding import rounds as travel
from sharding.config import AXES
from sharding.experts import experts, kernel
from sharding.means import means
from sharding.table import sharding
from tests.jaxprs import equations
from tests.model.conftest import small_config
from tests.training.sharded import begin, mesh_of, placed
from training.state import NOTHING

E, A, D, F, B, T = 8, 3, 16, 24, 8, 12
CONFIG = ModelConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=D,
    num_heads=4,
    num_kv_heads=4,
    head_dim=4,
    mlp_dim=F,
    max_length=T,
    moe=MoeConfig(E, A, F),
)
MESHES: list[dict[str, int]] = [
    dict(expert=8),
    dict(expert=4, fsdp=2),
    dict(expert=2, fsdp=2, tensor=2),
    dict(expert=2, data=4),
    dict(expert=4, tensor=2),
    dict(data=2, fsdp=2, tensor=2),
    dict(tensor=8),
]


HOW = ("anyhow", "all to the same", "with padding")


def name(sizes: dict[str, int]) -> str:
    return "-".join(f"{axis}{size}" for axis, size in sizes.items())


def case(how: str) -> tuple[Any, ...]:
    rng = np.random.default_rng(1)
    ids = np.argsort(rng.random((B, T, E)), axis=-1)[..., :A]
    if how == "all to the same":
        ids[:] = [0, 1, 2]
    if how == "with padding":
        ids[:, 5:] = ids[3] = E
    up, gate, down = (0.3 * rng.normal(size=s) for s in ((E, D, F), (E, D, F), (E, D, F)))
    of = ExpertWeights(*(jnp.asarray(w, jnp.float32) for w in (up, gate, down)))
    x, weights = rng.normal(size=(B, T, D)), rng.random((B, T, A))
    return (
        jnp.asarray(x, jnp.float32),
        jnp.asarray(ids, jnp.int32),
        jnp.asarray(weights, jnp.float32),
        of,
    )


def slopes(function: Any) -> Any:
    """The result, and its gradients in tokens, their weights and those of the experts."""

    def both(x: Any, ids: Any, weights: Any, of: Any) -> Any:
        def total(x: Any, weights: Any, of: Any) -> Any:
            y = function(x, ids, weights, of)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(x, weights, of)

    return jax.jit(both)


@functools.cache
def on_one() -> Any:
    return slopes(moe.on_one(grouped.ragged, ACTIVATIONS["swiglu"]))


def compare(function: Any, *how: str) -> None:
    found = slopes(function)
    for one in how:
        expected = on_one()(*case(one))
        for a, b in zip(jax.tree.leaves(found(*case(one))), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=5e-6 * float(np.abs(b).max() + 1))


@pytest.mark.parametrize("sizes", MESHES, ids=name)
def test_a_mesh_computes_what_one_device_does(sizes: dict[str, int]) -> None:
    """Whatever the router does: no token is lost where all go to the same experts."""
    compare(experts(mesh_of(**sizes), CONFIG), *HOW)


@pytest.mark.parametrize("room", [0.1, 8.0], ids=["many rounds", "one round"])
def test_the_room_changes_nothing(room: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "ROOM", room)
    monkeypatch.setattr(travel, "_ROWS", 1)
    monkeypatch.setattr(travel, "_BLOCK", 1)
    compare(experts(mesh_of(expert=4, fsdp=2), CONFIG), "anyhow", "all to the same")


def test_as_many_rounds_as_the_busiest_pair_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "_ROWS", 1)
    monkeypatch.setattr(travel, "_BLOCK", 1)
    mesh = mesh_of(expert=4)
    rows = jax.sharding.PartitionSpec("expert")

    def rounds(ids_NA: Any) -> Any:
        ring = travel.Ring(CONFIG, grouped.ragged, ("expert",), 4, ("expert",), False)
        trips = travel.plan(ring, ids_NA, E // 4)
        assert trips.room == 9  # of 8 x 3 rows, 6 for each device, and half as many more
        return trips.rounds[None]

    run = jax.jit(jax.shard_map(rounds, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))
    ids = np.full((32, 3), E)
    np.testing.assert_array_equal(run(ids.copy()), [0] * 4)
    ids[:8] = [0, 2, 4]
    np.testing.assert_array_equal(run(ids.copy()), [1] * 4)
    ids[8:16] = [6, 7, 1]  # 16 rows from the second device to the last
    np.testing.assert_array_equal(run(ids.copy()), [2] * 4)


def by_all_gather(
    operand: Any, output: Any, input_offsets: Any, send_sizes: Any, output_offsets: Any,
    recv_sizes: Any, *, axis_name: Any,
) -> Any:  # fmt: skip
    """What `jax.lax.ragged_all_to_all` is documented to do, which CPUs cannot."""
    me = jax.lax.axis_index(axis_name)
    everything = [
        jax.lax.all_gather(x, axis_name)
        for x in (operand, input_offsets, send_sizes, output_offsets)
    ]
    for source, (x, start, size, to) in enumerate(zip(*everything, strict=True)):
        at = jnp.arange(output.shape[0])
        mine = (at >= to[me]) & (at < to[me] + size[me])
        rows = x[jnp.clip(at - to[me] + start[me], 0, len(x) - 1)]
        mine &= size[me] == recv_sizes[source]
        output = jnp.where(mine.reshape(-1, *(1,) * (output.ndim - 1)), rows, output)
    return output


@pytest.mark.parametrize("sizes", MESHES[:3], ids=name)
def test_the_ragged_form_computes_the_same(
    sizes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax.lax, "ragged_all_to_all", by_all_gather)
    function: Any = experts(mesh_of(**sizes), CONFIG)
    mesh, here, keeps = function.args
    ragged = functools.partial(travel.in_rounds, here.args[0]._replace(ragged=True))
    compare(functools.partial(function.func, mesh, ragged, keeps), *HOW)


@pytest.mark.parametrize(("topology", "stages"), [("v6e:2x4", 1), ("v5p:2x2x2", 2)])
def test_the_ragged_form_compiles_for_tpus(
    topology: str, stages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first round and in the loop over others: one exchange brings tokens and one takes them
    back; in the backward pass two bring them and their gradients, which the compiler may join. Also
    as stages of a pipeline call it, side by side.
    """
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    sizes = {"expert": 4, "fsdp": 2 // stages, "pipeline": stages}
    mesh = jax.sharding.Mesh(np.array(devices).reshape([sizes.get(axis, 1) for axis in AXES]), AXES)
    config = dataclasses.replace(
        CONFIG, dtype="bfloat16", embed_dim=256, moe=MoeConfig(8, 2, expert_mlp_dim=256)
    )
    one: Any = experts(mesh, config)
    function: Any = jax.vmap(one, spmd_axis_name="pipeline")

    def total(x: Any, ids: Any, weights: Any, of: Any) -> Any:
        return jnp.sum(jnp.square(function(x, ids, weights, of).astype(jnp.float32)))

    def like(dtype: Any, axes: tuple[str, ...], *shape: int) -> Any:
        where = sharding(mesh, ("stages", *axes), (stages, *shape))
        return jax.ShapeDtypeStruct((stages, *shape), dtype, sharding=where)

    rows = ("batch", "length", "whole")
    w = like(jnp.bfloat16, ("experts", "expert_embed", "mlp"), 8, 256, 256)
    step = jax.jit(jax.grad(total, (0, 2, 3)))
    text = str(
        step.lower(
            like(jnp.bfloat16, rows, 8, 128, 256),
            like(jnp.int32, rows, 8, 128, 2),
            like(jnp.float32, rows, 8, 128, 2),
            ExpertWeights(w, w, w),
        )
        .compile()
        .as_text()
    )
    exchanges = re.findall(r" ragged-all-to-all(?:-start)?\(", text)  # older ones are synchronous
    assert 2 * (2 + 2) <= len(exchanges) <= 2 * (2 + 3)
    assert text.count('custom_call_target="tpu_custom_call"') >= 2 * (3 + 2 + 6)


@pytest.mark.parametrize(
    ("platform", "kind", "ragged"),
    [
        ("cpu", "cpu", False),
        ("gpu", "NVIDIA H100 80GB HBM3", True),
        ("tpu", "TPU v5", True),
        ("tpu", "TPU v5 lite", False),
    ],
)
def test_the_exchange(platform: str, kind: str, ragged: bool) -> None:
    mesh: Any = SimpleNamespace(
        devices=np.array([SimpleNamespace(platform=platform, device_kind=kind)] * 2),
        size=2,
        shape={axis: 2 if axis == "expert" else 1 for axis in AXES},
    )
    function: Any = experts(mesh, CONFIG)
    assert function.args[1].args[0].ragged == ragged


@pytest.mark.parametrize(
    ("platform", "dtype", "name"),
    [
        ("tpu", "bfloat16", "Megablox (Pallas)"),
        ("tpu", "float32", "ragged dot (XLA)"),
        ("gpu", "bfloat16", "ragged dot (XLA)"),
        ("cpu", "bfloat16", "ragged dot (XLA)"),
    ],
)
def test_the_kernel(platform: str, dtype: Any, name: str) -> None:
    device, ones = SimpleNamespace(platform=platform), dict.fromkeys(AXES, 1)
    mesh: Any = SimpleNamespace(devices=np.array([device]), size=1, shape=ones)
    config = small_config("mixtral", dtype=dtype)
    found = kernel(mesh, config)
    assert found.name == name
    one: Any = means(mesh, config).experts
    assert one.args == (found.grouped, ACTIVATIONS["swiglu"])
    assert (found.grouped is megablox.grouped) == name.startswith("Megablox")
    assert means(mesh, small_config()).experts is None


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [dict(fsdp=8), dict(fsdp=4, expert=2)], ids=name)
@pytest.mark.parametrize("remat", ["none", "full"])
def test_whole_weights_are_not_kept_for_the_backward_pass(
    sizes: dict[str, int], remat: Remat
) -> None:
    """As compiled: nothing is of three layers of experts with all of D."""
    config = dataclasses.replace(CONFIG, num_layers=3, embed_dim=32, max_length=16, remat=remat)
    run = begin(mesh_of(**sizes), config)
    step: Any = run.step
    text = str(step.lower(run.abstract, NOTHING, placed(run.mesh, 0)).compile().as_text())
    here = E // sizes.get("expert", 1)
    part = 32 // sizes["fsdp"]
    assert re.search(rf"f32\[3,{here},{part},24\]", text)
    assert not re.search(rf"f32\[3,(1,)?{here},(32,24|24,32)\]", text)


def test_float32_is_float32_in_both_directions() -> None:
    """Of every product inside the rounds: their backward pass is written by hand."""
    function: Any = experts(mesh_of(expert=2), CONFIG)
    x, ids, weights, of = case("anyhow")

    def total(x: Any, of: Any) -> Any:
        return jnp.sum(function(x, ids, weights, of))

    jaxpr = jax.make_jaxpr(jax.grad(total, (0, 1)))(x, of)
    found = [e.params["precision"] for e in equations(jaxpr, "ragged_dot_general")]
    assert len(found) >= 3 + 3 + 6
    assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}
