"""The text of programs as instructions."""
# ruff: noqa: E501

import jax
import jax.numpy as jnp
import pytest

from planning import hlo
from planning.sources import Sources

PROGRAM = """HloModule jit_step, is_scheduled=true, num_partitions=8

%inner (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%p)
}

ENTRY %main (a: bf16[8,128]) -> (bf16[8,128], f32[4]) {
  %a = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="x[\\'a\\']"}
  %kernel = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, f32[4]{0:T(128)}) custom-call(%a, /*index=1*/%a), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="step/kernel"}, backend_config={"estimated_cycles":"7"}
  %made = f32[4]{0} fusion(%kernel#1), kind=kLoop, calls=%inner
  ROOT %out = (bf16[8,128]{1,0}, f32[4]{0}) tuple(%kernel#0, %made)
}
"""


def test_instructions() -> None:
    module = hlo.parse(PROGRAM)
    assert module.entry == "main" and list(module.computations) == ["inner", "main"]
    main = module.computations["main"]
    kernel = main["kernel"]
    assert kernel.operands == ["a", "a"]
    assert kernel.results == (hlo.Shape("bf16", (8, 128), 1), hlo.Shape("f32", (4,), 0, 124))
    # What follows a line break inside an attribute belongs to the instruction too.
    assert kernel.attribute(r'estimated_cycles":"(\d+)"') == "7"
    assert Sources(module).of(kernel.attributes).name == "step/kernel"
    assert main["made"].calls == "inner"
    assert hlo.root(main).name == "out"
    # A part of a tuple stands for the get-tuple-element that it is short for.
    assert main["kernel#1"].op == "get-tuple-element"
    assert hlo.taken(main, main["made"]) == [hlo.Shape("f32", (4,), 0, 124)]


def test_a_program_has_an_entry() -> None:
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("%inner (p: f32[4]) -> f32[4] {\n}")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("f32[2,3]{1,0}", 24),
        ("bf16[]", 2),
        ("pred[8]{0}", 8),
        ("s4[3]{0}", 2),
        ("f8e4m3fn[16,<=16]", 256),
        ("c64[2]", 16),
        ("(f32[2]{0:T(128)S(1)}, /*index=1*/(s8[4]{0}, u32[]))", 16),
        ("token[]", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert sum(shape.bytes for shape in hlo.shapes(text)) == size


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("bf16[4,100,64]{2,1,0:T(8,128)(2,1)}", 4 * 104 * 128 * 2),
        ("f32[64,100]{0,1:T(8,128)}", 128 * 104 * 4),  # neighbours along the first lie side by side
        ("f32[100]{0:T(128)S(1)}", 128 * 4),
        ("f32[4,100,64]{2,1,0}", 4 * 100 * 64 * 4),
    ],
)
def test_layouts_pad_to_whole_tiles(text: str, stored: int) -> None:
    (shape,) = hlo.shapes(text)
    assert shape.stored == stored


def called(x: jax.Array) -> jax.Array:
    return jnp.sin(x) @ x


def test_sources_are_lines_of_python_innermost_first() -> None:
    compiled = jax.jit(lambda x: called(x) + 1).lower(jnp.ones((64, 64))).compile()
    module = hlo.parse(str(compiled.as_text()))
    sources = Sources(module)
    found = [
        sources.of(one.attributes)
        for computation in module.computations.values()
        for one in computation.values()
        if one.op == "dot"
    ]
    assert found and found[0].name.endswith("dot_general")
    inner = called.__code__.co_firstlineno + 1
    outer = test_sources_are_lines_of_python_innermost_first.__code__.co_firstlineno + 1
    assert found[0].lines[:2] == (
        f"tests/planning/test_hlo.py:{inner}",
        f"tests/planning/test_hlo.py:{outer}",
    )
    assert not any("site-packages" in line for line in found[0].lines)
