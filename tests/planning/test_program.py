"""Whole programs: a training step on eight devices, and what TPUs' compiler says and refuses."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from model.config import ModelConfig
from planning import program
from planning.kernels import Kernel
from planning.prediction import Clock
from planning.topology import parse
from sharding.config import MeshConfig
from tests.planning.steps import ROWS, lowered

MODEL = ModelConfig(
    vocab_size=256,
    num_layers=3,
    embed_dim=64,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=96,
    max_length=32,
    tie_embeddings=False,
    remat="full",
)
GIB = 1024**3


def dense(model: ModelConfig) -> int:
    """FLOPs of a step's products with weights, on one of the devices.

    Of a block all is computed again but its last product, whose result nobody needs.
    """
    attention = 6 * model.num_layers * model.num_heads * model.head_dim * model.max_length
    once = model.flops_per_token(model.max_length) - attention
    blocks = once / 3 - 2 * model.padded_vocab_size * model.embed_dim
    again = blocks - model.num_layers * 2 * model.embed_dim * model.mlp_dim
    return round(once + again) * ROWS * model.max_length


def test_a_training_step() -> None:
    step, mesh = lowered(MODEL, MeshConfig(data=2, fsdp=2, tensor=2), jax.devices())
    found = program.build(step, mesh)
    # On CPUs attention multiplies all pairs: a product of T x H x T for each row and head. There
    # are two forward, again backward (where scores are computed twice, once is enough), and five.
    product = 2 * ROWS * MODEL.num_heads * MODEL.head_dim * MODEL.max_length**2 * MODEL.num_layers
    products, rest = divmod(found.work.flops - dense(MODEL), product)
    assert rest == 0 and products in (8, 9)
    assert found.work.cycles == 0 and not found.uncounted
    # Weights are gathered along fsdp; tensor sums; nothing but sums goes along data alone.
    kinds = {(one.kind, one.axes) for one in found.exchanges}
    assert {("all-gather", ("fsdp",)), ("all-reduce", ("tensor",))} <= kinds
    state = 3 * 4 * MODEL.num_params() // 4  # parameters and two moments, over fsdp x tensor
    assert state < found.memory.arguments < 1.1 * state
    assert found.memory.aliased > 0.99 * state and not found.memory.over
    plain = program.read(step.compile(), mesh).memory
    assert plain == found.memory._replace(constants=0)
    live = sum(one.bytes for one in found.live if one.kind == "temporary")
    assert 0.9 * found.memory.temporaries < live <= found.memory.temporaries


@pytest.fixture
def topology(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes devices of TPUs that are not here."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    options = {"platform": "tpu"}
    yield lambda name, **more: topologies.get_topology_desc(name, **options | more).devices


@pytest.mark.parametrize("name", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_a_training_step_on_tpus(topology: Any, name: str) -> None:
    """Of every generation: cycles, and exchanges that go on beside products."""
    model = ModelConfig(
        vocab_size=512,
        num_layers=3,
        embed_dim=256,
        num_heads=2,
        num_kv_heads=2,
        head_dim=128,
        mlp_dim=512,
        max_length=256,
        tie_embeddings=False,
        remat="full",
        dtype="bfloat16",
    )
    described = parse(name).libtpu()
    devices = topology(described.pop("topology_name"), **described)
    step, mesh = lowered(model, MeshConfig(data=1, fsdp=2, tensor=2), devices)
    found = program.build(step, mesh)
    assert found.work.flops == dense(model)
    assert found.work.product_cycles > 0 and found.work.other_cycles > 0
    kernels = found.work.kernels
    assert sum(one.calls for one in kernels.values()) == 4 * model.num_layers
    assert found.work.kernel_flops == 11 / 6 * (
        6 * model.num_layers * model.num_heads * model.head_dim * model.max_length
    ) * (ROWS * model.max_length)
    in_layers = [one for one in found.exchanges if one.times % model.num_layers == 0]
    assert {axis for one in in_layers for axis in one.axes} == {"fsdp", "tensor"}
    beside = any(one.asynchronous for one in in_layers)
    assert beside or not name.startswith("v5e")  # others do not split products that are so small
    time = Clock(parse(name), dict(mesh.shape)).predicted(found)
    assert time is not None and 0 < time.exposed < 1.001 * time.exchanges
    assert time.exposed < time.exchanges or not beside
    memory = found.memory
    assert sum(one.bytes for one in found.live if one.kind == "argument") == memory.arguments
    assert not memory.over and memory.code > 0


def test_what_does_not_fit_says_by_how_much_and_why(topology: Any) -> None:
    device = topology("v5e:2x2")[0]
    one = SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((4 * GIB // 4096, 1024), jnp.float32, sharding=one)

    def step(x: jax.Array) -> jax.Array:
        wide = jnp.concatenate([jnp.sort(x, axis=1), jnp.sort(x, axis=0)], axis=1)
        return jnp.sort(wide, axis=0) + 1

    mesh = Mesh(np.asarray([device]), ("data",))
    found = program.build(jax.jit(step).lower(x), mesh)
    memory = found.memory
    assert memory.arguments == 4 * GIB and memory.outputs == 8 * GIB
    assert memory.needed == memory.total > 15.75 * GIB
    assert memory.over == memory.needed - round(15.75 * GIB)
    assert sum(one.bytes for one in found.live) <= memory.total
    line = step.__code__.co_firstlineno
    places = {place for one in found.live for place in one.source.lines}
    assert {f"tests/planning/test_program.py:{line + n}" for n in (1, 2)} & places


def test_what_fits_is_exact(topology: Any) -> None:
    """As the compiler counts it, with a large constant, an offloaded array and a kernel."""
    mesh = Mesh(np.asarray(topology("v5e:2x2")), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    hosted = rows.with_memory_kind("pinned_host")
    constant = np.random.default_rng(0).random((1024, 1024), np.float32)

    def double(x_ref: Any, out_ref: Any) -> None:
        out_ref[...] = x_ref[...] * 2

    def kernel(x: jax.Array) -> jax.Array:
        cost = pl.CostEstimate(flops=123, transcendentals=0, bytes_accessed=456)
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(double, like, cost_estimate=cost, name="double")(x)

    mapped = jax.shard_map(
        kernel, mesh=mesh, in_specs=rows.spec, out_specs=rows.spec, check_vma=False
    )

    def step(x: jax.Array, far: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = mapped(x) @ constant
        return jnp.sort(y, axis=1), jax.device_put(
            jax.device_put(far, jax.memory.Space.Device) + 1, jax.memory.Space.Host
        )

    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32, sharding=rows)
    far = jax.ShapeDtypeStruct((4096, 1024), jnp.float32, sharding=hosted)
    lowered = jax.jit(step, out_shardings=(rows, hosted), donate_argnums=1).lower(x, far)
    found, said = program.build(lowered, mesh), lowered.compile().memory_analysis()
    assert said is not None
    total = getattr(said, "total_allocation_bytes", None)
    assert total is None or found.memory.total - found.memory.code == total
    assert found.memory.constants > 1024 * 1024
    assert found.memory.host == 1024 * 1024 * 4
    assert found.work.host_bytes == 2 * 1024 * 1024 * 4
    assert found.work.kernels == {"double": Kernel(1, 123, 456)}


def test_another_failure_is_told_as_it_is(topology: Any) -> None:
    device = topology("v5e:2x2")[0]
    one = SingleDeviceSharding(device)
    x = jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=one)
    mesh = Mesh(np.asarray([device]), ("data",))
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        program.build(jax.jit(jnp.sin).lower(x), mesh, {"no_such_option": True})


def test_several_slices(topology: Any) -> None:
    devices = sorted(topology("v5e:2x2", num_slices=2), key=lambda one: one.id)
    mesh = Mesh(np.asarray(devices).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
    split = PartitionSpec(("data", "fsdp", "tensor"))
    x = jax.ShapeDtypeStruct((64, 1024), jnp.float32, sharding=NamedSharding(mesh, split))

    def step(x: jax.Array) -> jax.Array:
        return jax.lax.psum(jax.lax.all_gather(x, "tensor", tiled=True), ("data", "fsdp"))

    mapped = jax.shard_map(step, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    found = program.build(jax.jit(mapped).lower(x), mesh).exchanges
    between = [one for one in found if one.between_slices]
    within = {axis for one in found if not one.between_slices for axis in one.axes}
    assert within == {"fsdp", "tensor"}
    assert [(one.kind, one.axes) for one in between] == [("all-reduce", ("data",))]
    # First it is summed within the slice, and each device keeps a part of the sum.
    assert between[0].sent == math.prod((64 // 8 * 2, 1024, 4)) // 2
