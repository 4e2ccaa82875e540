"""What lies in memory at the peak: by hand, and of a program whose buffers are known."""
# ruff: noqa: E501

from pathlib import Path

import jax
import jax.numpy as jnp

from planning import buffers, hlo
from planning.sources import Sources

PROGRAM = """HloModule jit_step, is_scheduled=true

%put (whole: f32[4,256], row: f32[256], n: s32[]) -> f32[4,256] {
  %whole = f32[4,256]{1,0} parameter(0)
  %row = f32[256]{0} parameter(1)
  %n = s32[] parameter(2)
  %zero = s32[] constant(0)
  %flat = f32[1,256]{1,0} bitcast(%row)
  ROOT %update = f32[4,256]{1,0} dynamic-update-slice(%whole, %flat, %n, %zero), metadata={op_name="stacked" source_file="scan.py" source_line=1}
}

%body (w: (s32[], f32[4,256])) -> (s32[], f32[4,256]) {
  %w = (s32[], f32[4,256]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%w), index=0
  %all = f32[4,256]{1,0} get-tuple-element(%w), index=1
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %made = f32[256]{0} iota(), iota_dimension=0, metadata={op_name="made" source_file="model.py" source_line=7}
  %fused = f32[4,256]{1,0} fusion(%all, %made, %i), kind=kLoop, calls=%put, metadata={op_name="stacked" source_file="scan.py" source_line=1}
  ROOT %out = (s32[], f32[4,256]{1,0}) tuple(%next, %fused)
}

%less (w.1: (s32[], f32[4,256])) -> pred[] {
  %w.1 = (s32[], f32[4,256]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%w.1), index=0
  %four = s32[] constant(4)
  ROOT %go = pred[] compare(%i.1, %four), direction=LT
}

ENTRY %main (a: f32[512]) -> f32[512] {
  %a = f32[512]{0} parameter(0), metadata={op_name="state['a']"}
  %start = s32[] constant(0)
  %space = f32[4,256]{1,0} broadcast(%start), dimensions={}
  %into = (s32[], f32[4,256]{1,0}) tuple(%start, %space)
  %loop = (s32[], f32[4,256]{1,0}) while(%into), condition=%less, body=%body
  %early = f32[256]{0} iota(), iota_dimension=0
  ROOT %r = f32[512]{0} negate(%a)
}
"""
ASSIGNMENT = """BufferAssignment:
allocation 0: size 2048, page 0, parameter 0, shape |f32[512]| at ShapeIndex {}, maybe-live-out:
 value: <1 a @0> (size=2048,offset=0): f32[512]{0}
 value: <2 r @0> (size=2048,offset=0): f32[512]{0}
allocation 1: size 512, page 0, constant:
 value: <3 four @0> (size=4,offset=0): s32[]
allocation 2: size 512, page 0, thread-local:
 value: <4 i @0> (size=4,offset=0): s32[]
allocation 3: size 9000, color 1, page 0, preallocated-temp:
 value: <5 made @1> (size=1024,offset=0): f32[256]{0:S(1)}
allocation 4: size 6144, page 0, preallocated-temp:
 value: <6 space @0> (size=4096,offset=0): f32[4,256]{1,0}
 value: <7 loop{1} @0> (size=4096,offset=0): f32[4,256]{1,0}
 value: <8 w{1} (phi) @0> (size=4096,offset=0): f32[4,256]{1,0}
 value: <9 early @0> (size=1024,offset=4096): f32[256]{0}
 value: <10 made @0> (size=512,offset=5632): f32[256]{0}
allocation 5: size 128, page 0, output shape is |f32[512]|, maybe-live-out:
 value: <11 r{0} @0> (size=128,offset=0): f32[512]{0}
"""
RANGES = """HloLiveRange (max 20):
  InstructionSequence:
    0:a
  BufferLiveRange:
    a{}:0-20
    space{}:2-3
    loop{1}:3-10
    w{1}:4-9
    early{}:8-12
    made{}:6-7
  Live ranges at 8 (peak):
    loop{1}: 4096 bytes (cumulative: 4096 bytes)
"""


def test_by_hand() -> None:
    module = hlo.parse(PROGRAM)
    found = buffers.of_text(ASSIGNMENT, RANGES, module, Sources(module))
    assert (found.arguments, found.outputs, found.constants) == (2048, 128, 512)
    assert found.aliased == 2048
    # What lies in other memory, or in registers, is not in it.
    assert (found.temporaries, found.used) == (6144, 4096 + 1024)
    assert found.total == 2048 + 128 + 512 + 6144
    # The loop's buffer comes from what is put into it, row by row, not from the loop.
    told = [(one.bytes, str(one.shape), one.kind, one.source.name) for one in found.live]
    assert told == [
        (4096, "f32[4,256]", "temporary", "made"),
        (2048, "f32[512]", "argument", "state['a']"),
        (1024, "f32[256]", "temporary", ""),
        (512, "s32[]", "constant", ""),
        (128, "f32[512]", "output", ""),
    ]
    assert found.live[0].source.lines == ("model.py:7",)


def test_as_the_compiler_says(tmp_path: Path) -> None:
    """At the peak there are an array and what it is made of; what came before is gone."""

    def step(x: jax.Array) -> jax.Array:
        small = jnp.sin(x) @ x
        wide = jnp.tile(small, (1, 4)) + 1
        large = wide.T @ wide
        return jnp.sum(jnp.sort(large))

    x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    compiled = jax.jit(step).lower(x).compile({"xla_dump_to": str(tmp_path)})
    module = hlo.parse(str(compiled.as_text()))
    written = hlo.parse(buffers.text_of(tmp_path))
    assert written.computations.keys() == module.computations.keys()
    found = buffers.read(tmp_path, module, Sources(module))
    said = compiled.memory_analysis()
    assert found and said
    assert found.arguments == said.argument_size_in_bytes == 256 * 256 * 4
    assert found.temporaries == said.temp_size_in_bytes >= found.used
    first = step.__code__.co_firstlineno
    told = [(one.bytes, one.source.lines[0]) for one in found.live if one.kind == "temporary"]
    assert told[:2] == [
        (1024 * 1024 * 4, f"tests/planning/test_buffers.py:{first + 3}"),
        (256 * 1024 * 4, f"tests/planning/test_buffers.py:{first + 2}"),
    ]


def test_where_nothing_was_written(tmp_path: Path) -> None:
    module = hlo.parse(PROGRAM)
    assert buffers.read(tmp_path, module, Sources(module)) is None
    assert buffers.text_of(tmp_path) == ""
