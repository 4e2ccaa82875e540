"""Cycles, FLOPs, bytes and kernels, loops multiplied out."""
# ruff: noqa: E501

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from planning import hlo
from planning.kernels import Attention, Kernel, attention
from planning.traffic import transfer
from planning.work import Schedule, Work

PROGRAM = """HloModule jit_step, is_scheduled=true

%ring (w: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %w = (s32[], bf16[8,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%w), index=0
  %x = bf16[8,128]{1,0} get-tuple-element(%w), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %made = bf16[8,128]{1,0} fusion(%x), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"10"}
  ROOT %out = (s32[], bf16[8,128]{1,0}) tuple(%next, %made)
}

%less (w.1: (s32[], bf16[8,128])) -> pred[] {
  %w.1 = (s32[], bf16[8,128]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%w.1), index=0
  %seven = s32[] constant(7)
  ROOT %go = pred[] compare(%i.1, %seven), direction=LT
}

%inner (p: bf16[8,128]) -> bf16[8,128] {
  %p = bf16[8,128]{1,0} parameter(0)
  ROOT %n = bf16[8,128]{1,0} negate(%p), backend_config={"estimated_cycles":"999"}
}

%product (l: bf16[8,128], r: bf16[8,128]) -> f32[8,8] {
  %l = bf16[8,128]{1,0} parameter(0)
  %r = bf16[8,128]{1,0:S(1)} parameter(1)
  ROOT %d = f32[8,8]{1,0} dot(%l, %r), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

ENTRY %main (a: bf16[8,128], q: bf16[2,4,64,32]) -> f32[8,8] {
  %a = bf16[8,128]{1,0} parameter(0)
  %q = bf16[2,4,64,32]{3,2,1,0} parameter(1)
  %zero = s32[] constant(START)
  %begin = (s32[], bf16[8,128]{1,0}) tuple(%zero, %a)
  %loop = (s32[], bf16[8,128]{1,0}) while(%begin), condition=%less, body=%ring
  %b = bf16[8,128]{1,0:S(1)} get-tuple-element(%loop), index=1
  %splash_mqa_fwd_segmented.3 = bf16[2,4,64,32]{3,2,1,0} custom-call(%q), custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[2,4,64,32]{3,2,1,0}}
  %gmm.1 = bf16[8,128]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"cost_estimate":{"flops":"50","transcendentals":"0","bytes_accessed":"60"}}}
  %other = bf16[8,128]{1,0} custom-call(%a), custom_call_target="Sharding"
  ROOT %r.1 = f32[8,8]{1,0} fusion(%a, %b), kind=kOutput, calls=%product, backend_config={"estimated_cycles":"5"}
}
"""


def work_of(text: str) -> Work:
    return Schedule(hlo.parse(text)).work()


def compiled(function: Any, *arguments: Any) -> Work:
    return work_of(str(jax.jit(function).lower(*arguments).compile().as_text()))


@pytest.mark.parametrize(("start", "runs"), [(0, 4), (3, 2), (9, 0)])
def test_loops_are_multiplied_out(start: int, runs: int) -> None:
    found = work_of(PROGRAM.replace("START", str(start)))  # 0, 2, 4 and 6 are less than 7
    assert (found.product_cycles, found.other_cycles) == (5, runs * 10)
    assert found.cycles == 5 + runs * 10
    assert found.flops == 2 * 8 * 8 * 128


def test_bytes_are_those_in_main_memory() -> None:
    found = work_of(PROGRAM.replace("START", "0"))
    ring, product = 2 * (8 * 128 * 2), 8 * 128 * 2 + 8 * 8 * 4  # the other operand lies in VMEM
    counter, kernels = 4 * (4 + 4 + 4), 2 * (2 * 4 * 64 * 32 * 2) + 2 * (8 * 128 * 2)
    assert found.bytes == 4 * ring + product + counter + kernels


def test_kernels_stand_beside() -> None:
    kernels = work_of(PROGRAM.replace("START", "0")).kernels
    size = 2 * 4 * 64 * 32
    # Two causal products of 64 x 32 by 32 x 64, half of each left out.
    flops = 2 * (2 * 4 * 64 * 64 * 32)
    assert kernels == {
        "splash_mqa_fwd_segmented": Kernel(1, flops, 2 * size * 2),
        "gmm": Kernel(1, 50, 60),  # as its author says
    }


@pytest.mark.parametrize(
    ("queries", "keys", "numbers", "half"),
    [
        ("bf16[2,4,64,32]", "bf16[2,64,32]", 3, True),
        ("bf16[2,4,64,32]", "bf16[2,64,32]", 2, False),  # a ring's: all keys are seen
        ("bf16[2,4,64,32]", "bf16[2,512,32]", 3, True),  # gathered, and more than the queries
    ],
)
def test_attention_to_a_part_of_the_keys(queries: str, keys: str, numbers: int, half: bool) -> None:
    arguments = [queries, keys, keys, *["s32[64,128]"] * numbers]
    text = "HloModule m\n\nENTRY %main (p: s32[]) -> bf16[2,4,64,32] {\n"
    for n, one in enumerate(arguments):
        text += f"  %p{n} = {one} parameter({n})\n"
    given = ", ".join(f"%p{n}" for n in range(len(arguments)))
    text += f"  ROOT %splash_mqa_fwd_segmented.1 = {queries} custom-call({given}), "
    text += 'custom_call_target="tpu_custom_call"\n}\n'
    (kernel,) = work_of(text).kernels.values()
    length = int(keys.split(",")[1])
    assert kernel.flops == 2 * (2 * 4 * 64 * length * 32) * (1 if half else 2)


def test_a_loop_that_does_not_count_is_told() -> None:
    text = PROGRAM.replace("START", "0").replace("direction=LT", "direction=NE")
    schedule = Schedule(hlo.parse(text))
    assert schedule.work().other_cycles == 10
    assert schedule.uncounted == ["loop"]


def test_of_branches_the_longest_counts() -> None:
    def function(x: jax.Array) -> jax.Array:
        return jax.lax.switch(
            x[0, 0].astype(int), [jnp.sin, lambda x: x @ x, lambda x: x @ x @ x.T], x
        )

    assert compiled(function, jnp.ones((32, 32))).flops == 2 * (2 * 32**3)


def test_flops_of_dots() -> None:
    """Batched, transposed, in a scan in a scan: as written out."""

    def function(x_LBMK: jax.Array, y_BKN: jax.Array) -> jax.Array:
        def layer(total: jax.Array, x_BMK: jax.Array) -> tuple[jax.Array, None]:
            def again(total: jax.Array, _: None) -> tuple[jax.Array, None]:
                return jnp.tanh(total + jnp.einsum("BMK,BKN->BNM", x_BMK, y_BKN)), None

            return jax.lax.scan(again, total, None, length=3)[0], None

        return jax.lax.scan(layer, jnp.zeros((5, 16, 8)), x_LBMK)[0]

    found = compiled(function, jnp.ones((7, 5, 8, 12)), jnp.ones((5, 12, 16)))
    # What does not change within the inner loop may be taken out of it.
    assert found.flops in (7 * 3 * 2 * 5 * 8 * 12 * 16, 7 * 2 * 5 * 8 * 12 * 16)


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({"window_strides": (1, 1), "padding": "SAME"}, (3, 3, 6, 8)),
        ({"window_strides": (2, 1), "padding": "VALID", "rhs_dilation": (2, 1)}, (3, 2, 6, 8)),
        (
            {"window_strides": (1, 1), "padding": ((2, 1), (0, -1)), "lhs_dilation": (2, 1)},
            (3, 3, 6, 8),
        ),
        ({"window_strides": (1, 3), "padding": ((9, 9), (0, 0))}, (10, 3, 6, 8)),
        ({"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2}, (3, 3, 3, 8)),
        ({"window_strides": (1, 1), "padding": "SAME", "batch_group_count": 2}, (3, 3, 6, 8)),
    ],
)
def test_flops_of_convolutions(options: Any, kernel: tuple[int, ...]) -> None:
    """Convolved, ones count the pairs that meet."""
    convolve: Any = functools.partial(
        jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )
    ones = jnp.ones((4, 12, 10, 6)), jnp.ones(kernel)
    assert compiled(convolve, *ones).flops == 2 * float(np.sum(convolve(*ones)))


SLICED = """HloModule jit_step, is_scheduled=true

%update (whole: f32[9,64], part: f32[64], n: s32[]) -> f32[9,64] {
  %whole = f32[9,64]{1,0} parameter(0)
  %part = f32[64]{0} parameter(1)
  %n = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[1,64]{1,0} bitcast(%part)
  ROOT %put = f32[9,64]{1,0} dynamic-update-slice(%whole, %row, %n, %zero)
}

%take (whole.1: f32[9,64], n.1: s32[]) -> f32[64] {
  %whole.1 = f32[9,64]{1,0} parameter(0)
  %n.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  %row.1 = f32[1,64]{1,0} dynamic-slice(%whole.1, %n.1, %zero.1), dynamic_slice_sizes={1,64}
  ROOT %flat = f32[64]{0} bitcast(%row.1)
}

ENTRY %main (a: f32[9,64], n.2: s32[]) -> f32[9,64] {
  %a = f32[9,64]{1,0} parameter(0)
  %n.2 = s32[] parameter(1)
  %taken = f32[64]{0:S(1)} fusion(%a, %n.2), kind=kLoop, calls=%take
  %away = (f32[64]{0:S(5)}, f32[64]{0:S(1)}, u32[]) copy-start(%taken)
  %away.1 = f32[64]{0:S(5)} copy-done(%away)
  ROOT %put.1 = f32[9,64]{1,0} fusion(%a, %taken, %n.2), kind=kLoop, calls=%update
}
"""


def test_of_slices_and_updates_the_part_counts() -> None:
    found = work_of(SLICED)
    row, index = 64 * 4, 4
    assert found.bytes == (row + index) + (row + index)  # one is read from main memory, one written
    assert found.host_bytes == row


OFFLOADED = """HloModule jit_step, is_scheduled=true

ENTRY %main (all: bf16[9,64,64], part: bf16[1,64,64], n.1: s32[]) -> bf16[1,64,64] {
  %all = bf16[9,64,64]{2,1,0:T(8,128)(2,1)S(5)} parameter(0)
  %part = bf16[1,64,64]{2,1,0:T(8,128)(2,1)} parameter(1)
  %n.1 = s32[] parameter(2)
  %put = ((bf16[9,64,64]{2,1,0:T(8,128)(2,1)S(5)}, bf16[1,64,64]{2,1,0:T(8,128)(2,1)}, s32[], s32[], s32[]), bf16[9,64,64]{2,1,0:T(8,128)(2,1)S(5)}, u32[]{:S(2)}) dynamic-update-slice-start(%all, %part, %n.1, %n.1, %n.1)
  %put.1 = bf16[9,64,64]{2,1,0:T(8,128)(2,1)S(5)} dynamic-update-slice-done(%put)
  %take = ((bf16[9,64,64]{2,1,0:T(8,128)(2,1)S(5)}, s32[], s32[], s32[]), bf16[1,64,64]{2,1,0:T(8,128)(2,1)}, u32[]{:S(2)}) dynamic-slice-start(%put.1, %n.1, %n.1, %n.1), dynamic_slice_sizes={1,64,64}
  ROOT %take.1 = bf16[1,64,64]{2,1,0:T(8,128)(2,1)} dynamic-slice-done(%take)
}
"""


def test_what_is_offloaded_goes_to_the_host_and_comes_back() -> None:
    """A part of 64 x 64, of which the layout makes 64 x 128."""
    found, size = work_of(OFFLOADED), 64 * 128 * 2
    assert (found.bytes, found.host_bytes) == (2 * size, 2 * size)
    main = hlo.parse(OFFLOADED).computations["main"]
    there, back = transfer(main, main["put"]), transfer(main, main["take"])
    assert there == (size, 0, hlo.HOST) and back == (size, hlo.HOST, 0)
    assert transfer(main, main["put.1"]) is None


@pytest.mark.parametrize(
    ("phase", "table", "blocks", "lines", "steps"),
    [
        ("fwd", "s8[1,4,4]", 10, 4, 16),
        ("dq", "s8[1,4,4]", 10, 4, 16),
        ("dkv", "s8[1,4,4]", 10, 4, 16),
        ("fwd", "s8[1,4,2]", 7, 4, 8),  # a window: of each line two blocks, of the first one
    ],
)
def test_blocks_of_attention(phase: str, table: str, blocks: int, lines: int, steps: int) -> None:
    """Of 6 rows and heads with 2,048 tokens, in blocks of 512."""
    q, ids = "bf16[2,3,2048,128]", "s32[2048,128]"
    arguments = [table, q, q, q, ids, ids, ids]
    text = f"HloModule m\n\nENTRY %main (p: s32[]) -> {q} {{\n"
    for n, one in enumerate(arguments):
        text += f"  %p{n} = {one} parameter({n})\n"
    given = ", ".join(f"%p{n}" for n in range(len(arguments)))
    text += f"  ROOT %splash_mqa_{phase}_segmented.1 = {q} custom-call({given}), "
    sides = r'"{\"block_q\": 512, \"block_q_dkv\": 512, \"block_q_dq\": 512}"'
    text += f'custom_call_target="tpu_custom_call", frontend_attributes={{xprof_metadata={sides}}}\n}}\n'
    main = hlo.parse(text).computations["main"]
    found = attention(main, hlo.root(main))
    assert found == Attention(phase, 128, 512, 6 * blocks, 6 * lines, 6 * steps)
    assert attention(main, main["p1"]) is None
