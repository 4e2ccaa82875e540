"""What devices exchange: known programs on eight devices, and the forms of TPUs' programs by hand."""
# ruff: noqa: E501

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from planning import hlo
from planning.exchanges import Exchange
from planning.grid import Grid, grid
from planning.sources import Sources
from planning.steps import Begun, Computed, Ended, Loop, Step, exchanges, steps
from planning.work import Schedule, Work, total

AXES = ("data", "fsdp", "tensor")
ROWS, COLUMNS = 8, 64
SHARD = ROWS * COLUMNS * 4 // 8  # bytes


def steps_of(text: str, of: Grid) -> tuple[Step, ...]:
    module = hlo.parse(text)
    return steps(Schedule(module), Sources(module), of)


def read(text: str, of: Grid) -> tuple[Exchange, ...]:
    return exchanges(steps_of(text, of))


def beside(taken: Sequence[Step], name: str) -> Work | None:
    """What is computed between the beginning of an exchange and its end; None if it is not there."""
    found: list[tuple[int, Work]] = []
    key = ""
    for step in taken:
        if isinstance(step, Loop) and (inside := beside(step.steps, name)):
            return inside
        if isinstance(step, Begun) and isinstance(step.what, Exchange) and step.what.name == name:
            key = step.key
        elif isinstance(step, Ended) and step.key == key:
            return total(found)
        elif key:
            found += worked([step])
    return None


def worked(taken: Sequence[Step], times: int = 1) -> list[tuple[int, Work]]:
    found: list[tuple[int, Work]] = []
    for step in taken:
        if isinstance(step, Loop):
            found += worked(step.steps, times * step.times)
        elif isinstance(step, Computed):
            found.append((times, step.work))
    return found


def ring(x: jax.Array) -> jax.Array:
    """Something for three of its neighbours."""
    return jax.lax.fori_loop(
        0, 3, lambda _, x: jax.lax.ppermute(jnp.sin(x), "fsdp", [(0, 1), (1, 0)]), x
    )


@pytest.mark.parametrize(
    ("function", "kind", "axes", "sent", "times"),
    [
        (lambda x: jax.lax.psum(x, "data"), "all-reduce", ("data",), SHARD, 1),
        (
            lambda x: jax.lax.pmax(x, ("data", "tensor")),
            "all-reduce",
            ("data", "tensor"),
            2 * 3 * SHARD // 4,
            1,
        ),
        (lambda x: jax.lax.psum(x, AXES), "all-reduce", AXES, 2 * 7 * SHARD // 8, 1),
        (
            lambda x: jax.lax.all_gather(x, ("tensor", "data"), tiled=True),
            "all-gather",
            ("data", "tensor"),
            3 * SHARD,
            1,
        ),
        (
            lambda x: jax.lax.psum_scatter(x, "fsdp", scatter_dimension=1, tiled=True),
            "reduce-scatter",
            ("fsdp",),
            SHARD // 2,
            1,
        ),
        (
            lambda x: jax.lax.all_to_all(x, ("fsdp", "tensor"), 1, 0, tiled=True),
            "all-to-all",
            ("fsdp", "tensor"),
            3 * SHARD // 4,
            1,
        ),
        (ring, "collective-permute", ("fsdp",), SHARD, 3),
    ],
)
def test_on_eight_devices(
    function: Callable[[jax.Array], jax.Array],
    kind: str,
    axes: tuple[str, ...],
    sent: int,
    times: int,
) -> None:
    """Over a mesh whose devices lie in another order than their ids."""
    devices = np.asarray(jax.devices())[[3, 1, 0, 2, 7, 6, 5, 4]].reshape(2, 2, 2)
    mesh = Mesh(devices, AXES)
    split = PartitionSpec(AXES)
    step = jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    )
    x = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float32, sharding=NamedSharding(mesh, split))
    text = str(step.lower(x).compile().as_text())
    (found,) = read(text, grid(mesh))
    assert (found.kind, found.axes, found.sent, found.times) == (kind, axes, sent, times)
    assert found.devices == np.prod([mesh.shape[axis] for axis in axes])
    assert not found.asynchronous and not found.between_slices
    assert beside(steps_of(text, grid(mesh)), found.name) == Work()
    assert found.source.lines[0].startswith("tests/planning/test_exchanges.py:")


def test_what_the_compiler_adds_is_seen() -> None:
    """A product of a split weight gathers it; one over a split dimension sums its result."""
    mesh = Mesh(np.asarray(jax.devices()).reshape(2, 2, 2), AXES)

    def like(shape: tuple[int, ...], *spec: Any) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    def step(x: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
        def layer(x: jax.Array, weights: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            return jnp.tanh(jnp.tanh(x @ weights[0]) @ weights[1]), None

        return jax.lax.scan(layer, x, (up, down))[0]

    x = like((4096, 32), ("data", "fsdp"))
    up, down = like((5, 32, 64), None, "fsdp", "tensor"), like((5, 64, 32), None, "tensor", "fsdp")
    text = str(jax.jit(step, out_shardings=x.sharding).lower(x, up, down).compile().as_text())
    found = read(text, grid(mesh))
    # Each is gathered, or all at once; either way the halves of a layer's two weights are sent.
    gathered = sum(e.times * e.sent for e in found if (e.kind, e.axes) == ("all-gather", ("fsdp",)))
    assert gathered == 5 * 2 * (32 * 64 // 4) * 4
    (summed,) = (e for e in found if e.kind == "all-reduce")
    assert (summed.axes, summed.times) == (("tensor",), 5)
    assert summed.sent == (4096 // 4) * 32 * 4


TPU = """HloModule jit_step, is_scheduled=true, num_partitions=8

%begin (p.1: bf16[4,8]) -> (bf16[4,8], bf16[8,8], s32[2]) {
  %p.1 = bf16[4,8]{1,0} parameter(0)
  %all-gather.1 = bf16[8,8]{1,0} all-gather(%p.1), channel_id=5, replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}, use_global_device_ids=true, metadata={op_name="gathered"}
  ROOT %start = (bf16[4,8]{1,0}, bf16[8,8]{1,0}, s32[2]{0}) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%during (p.2: bf16[4,8], x.2: bf16[8,8]) -> (bf16[8,8], bf16[8,8]) {
  %p.2 = bf16[4,8]{1,0} parameter(0)
  %x.2 = bf16[8,8]{1,0} parameter(1)
  %all-gather.2 = bf16[8,8]{1,0} all-gather(%p.2), channel_id=5, replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}, use_global_device_ids=true
  %d.2 = bf16[8,8]{1,0} dot(%x.2, %x.2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %both = (bf16[8,8]{1,0}, bf16[8,8]{1,0}) tuple(%d.2, %all-gather.2)
}

%within (p.7: bf16[4,8]) -> bf16[8,8] {
  %p.7 = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.7 = bf16[8,8]{1,0} all-gather(%p.7), channel_id=5, replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}, use_global_device_ids=true
}

%end (p.3: bf16[4,8]) -> bf16[8,8] {
  %p.3 = bf16[4,8]{1,0} parameter(0)
  %all-gather.3 = bf16[8,8]{1,0} all-gather(%p.3), channel_id=5, replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}, use_global_device_ids=true
  ROOT %done = bf16[8,8]{1,0} custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.4 (p.4: f32[8,8]) -> f32[4,8] {
  %p.4 = f32[8,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %all-reduce.4 = f32[8,8]{1,0} all-reduce(%p.4), channel_id=6, replica_groups=[4,2]<=[2,4]T(1,0), use_global_device_ids=true, to_apply=%sum, metadata={op_name="scattered"}
  ROOT %part = f32[4,8]{1,0} dynamic-slice(%all-reduce.4, %zero, %zero), dynamic_slice_sizes={4,8}
}

%wrapped (p.5: f32[4,8]) -> f32[2,8] {
  %p.5 = f32[4,8]{1,0} parameter(0)
  ROOT %reduce-scatter.5 = f32[2,8]{1,0} reduce-scatter(%p.5), channel_id=7, replica_groups=[4,2]<=[4,2], use_global_device_ids=true, dimensions={0}, to_apply=%sum, metadata={op_name="wrapped"}
}

%apart (p.8: bf16[4,8]) -> bf16[8,8] {
  %p.8 = bf16[4,8]{1,0} parameter(0)
  ROOT %all-gather.8 = bf16[8,8]{1,0} all-gather(%p.8), channel_id=9, replica_groups={{0,2},{1,3},{4,6},{5,7}}, dimensions={0}, use_global_device_ids=true, metadata={op_name="apart"}
}

%negated (p.6: bf16[8,8]) -> bf16[8,8] {
  %p.6 = bf16[8,8]{1,0} parameter(0)
  ROOT %n.6 = bf16[8,8]{1,0} negate(%p.6)
}

%body (w: (s32[], bf16[8,8])) -> (s32[], bf16[8,8]) {
  %w = (s32[], bf16[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%w), index=0
  %x = bf16[8,8]{1,0} get-tuple-element(%w), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %moved = (bf16[8,8]{1,0}, bf16[8,8]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=8, source_target_pairs={{0,2},{2,4},{4,6},{6,0},{1,3},{3,5},{5,7},{7,1}}
  %made = bf16[8,8]{1,0} fusion(%x), kind=kLoop, calls=%negated, backend_config={"estimated_cycles":"10"}
  %half = bf16[4,8]{1,0} slice(%x), slice={[0:4], [0:8]}
  %more = bf16[8,8]{1,0} fusion(%half), kind=kCustom, calls=%within
  %moved.1 = bf16[8,8]{1,0} collective-permute-done(%moved)
  ROOT %out = (s32[], bf16[8,8]{1,0}) tuple(%next, %moved.1)
}

%less (w.1: (s32[], bf16[8,8])) -> pred[] {
  %w.1 = (s32[], bf16[8,8]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%w.1), index=0
  %four = s32[] constant(4)
  ROOT %go = pred[] compare(%i.1, %four), direction=LT
}

%sum (a.1: f32[], b.1: f32[]) -> f32[] {
  %a.1 = f32[] parameter(0)
  %b.1 = f32[] parameter(1)
  ROOT %s.1 = f32[] add(%a.1, %b.1)
}

ENTRY %main (a: bf16[4,8], x: bf16[8,8], g: f32[8,8], h: f32[4,8]) -> bf16[8,8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %x.1 = bf16[8,8]{1,0} parameter(1)
  %g = f32[8,8]{1,0} parameter(2)
  %h = f32[4,8]{1,0} parameter(3)
  %async-collective-start = (bf16[4,8]{1,0}, bf16[8,8]{1,0}, s32[2]{0}) fusion(%a), kind=kCustom, calls=%begin
  %after = ((f32[4,8]{1,0}), f32[2,8]{1,0}) async-start(%h), calls=%wrapped
  %fusion.1 = (bf16[8,8]{1,0}, bf16[8,8]{1,0}) fusion(%a, %x.1), kind=kOutput, calls=%during, backend_config={"estimated_cycles":"100"}
  %zero.1 = s32[] constant(0)
  %into = (s32[], bf16[8,8]{1,0}) tuple(%zero.1, %x.1)
  %loop = (s32[], bf16[8,8]{1,0}) while(%into), condition=%less, body=%body
  %async-collective-done = bf16[8,8]{1,0} fusion(%a), kind=kCustom, calls=%end
  %units = ((), (), s32[4]{0}) custom-call-start(), async_execution_thread="sparsecore", custom_call_target="TODO", called_computations={%apart}
  %told = ((bf16[4,8]{1,0}), bf16[8,8]{1,0}, s32[4]{0}) custom-call-update(%units, %a)
  %fusion.2 = f32[4,8]{1,0} fusion(%g), kind=kCustom, calls=%all-reduce-scatter.4, backend_config={"estimated_cycles":"1"}
  %heard = bf16[8,8]{1,0} custom-call-done(%told)
  %after.1 = f32[2,8]{1,0} async-done(%after)
  ROOT %r = bf16[8,8]{1,0} fusion(%async-collective-done), kind=kLoop, calls=%negated, backend_config={"estimated_cycles":"5"}
}
"""


def test_the_forms_of_programs_for_tpus() -> None:
    sizes = {"data": 2, "fsdp": 2, "tensor": 2}
    taken = steps_of(TPU, Grid(sizes, tuple(range(8)), (0,) * 8))
    found = {e.source.name or e.kind: e for e in exchanges(taken)}
    works = {name: beside(taken, e.name) or Work() for name, e in found.items()}
    assert len(found) == 5
    gathered = found["gathered"]  # once, though four fusions have it
    assert (gathered.kind, gathered.axes, gathered.sent) == ("all-gather", ("tensor",), 4 * 8 * 2)
    assert gathered.asynchronous and works["gathered"].cycles == 100 + 4 * 10
    assert works["gathered"].flops == 2 * 8 * 8 * 8
    scattered = found["scattered"]
    assert (scattered.kind, scattered.axes) == ("reduce-scatter", ("data",))
    assert scattered.sent == 8 * 8 * 4 // 2 and not scattered.asynchronous
    wrapped = found["wrapped"]
    assert (wrapped.kind, wrapped.axes, wrapped.sent) == ("reduce-scatter", ("tensor",), 64)
    assert works["wrapped"].cycles == 100 + 4 * 10 + 1
    apart = found["apart"]
    assert (apart.kind, apart.axes, apart.sent) == ("all-gather", ("fsdp",), 4 * 8 * 2)
    assert apart.asynchronous and works["apart"].cycles == 1
    moved = found["collective-permute"]
    assert (moved.axes, moved.devices) == (("data", "fsdp"), 4)
    assert (moved.times, moved.sent, works["collective-permute"].cycles) == (4, 8 * 8 * 2, 10)
    assert moved.ahead == 1  # from 0 to 2 is one on, in the ring of those that have the same place


BETWEEN = """HloModule jit_step, is_scheduled=true, num_partitions=2

%sum (a.1: f32[], b.1: f32[]) -> f32[] {
  %a.1 = f32[] parameter(0)
  %b.1 = f32[] parameter(1)
  ROOT %s.1 = f32[] add(%a.1, %b.1)
}

%negated (p.6: f32[64]) -> f32[64] {
  %p.6 = f32[64]{0} parameter(0)
  ROOT %n.6 = f32[64]{0} negate(%p.6)
}

ENTRY %main (x: f32[64]) -> f32[64] {
  %x = f32[64]{0} parameter(0)
  %within = f32[64]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, use_global_device_ids=true, to_apply=%sum
  %t = token[] after-all()
  %send = (f32[64]{0}, u32[], token[]) send(%within, %t), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="sum_0",_xla_megascale_target="{1,2,3}x{0:1}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[64]{0}, u32[], token[]) recv(%t), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="sum_0",_xla_megascale_target="{1,2,3}x{0:1}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %send.1 = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %made = f32[64]{0} fusion(%x), kind=kLoop, calls=%negated, backend_config={"estimated_cycles":"10"}
  %recv.1 = (f32[64]{0}, token[]) recv-done(%recv), channel_id=3, is_host_transfer=true
  ROOT %r = f32[64]{0} get-tuple-element(%recv.1), index=0
}
"""


def test_between_slices() -> None:
    ids = tuple(100_000 * n + chip for n in (1, 2, 3) for chip in (0, 1))
    taken = steps_of(BETWEEN, Grid({"data": 3, "fsdp": 2}, ids, (1, 1, 2, 2, 3, 3)))
    within, between = exchanges(taken)
    assert (within.axes, within.between_slices, within.sent) == (("fsdp",), False, 64 * 4)
    assert (between.kind, between.axes, between.devices) == ("all-reduce", ("data",), 3)
    assert between.between_slices and between.sent == 2 * (2 * 64 * 4 // 3)
    worked = beside(taken, between.name)
    assert worked and worked.cycles == 10
