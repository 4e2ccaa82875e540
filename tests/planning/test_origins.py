"""Which instruction computes what a loop, an update or a copy hands on."""
# ruff: noqa: E501

import pytest

from planning import hlo
from planning.origins import Origins

PROGRAM = """HloModule jit_step, is_scheduled=true

%put (whole: f32[4,8], row: bf16[8], n: s32[]) -> (f32[4,8], f32[8]) {
  %whole = f32[4,8]{1,0} parameter(0)
  %row = bf16[8]{0} parameter(1)
  %n = s32[] parameter(2)
  %zero = s32[] constant(0)
  %wide = f32[8]{0} convert(%row)
  %flat = f32[1,8]{1,0} bitcast(%wide), metadata={op_name="while/body/jit(dynamic_update_index_in_dim)/broadcast_in_dim"}
  %update = f32[4,8]{1,0} dynamic-update-slice(%whole, %flat, %n, %zero)
  %twice = f32[8]{0} add(%wide, %wide), metadata={op_name="twice"}
  ROOT %both = (f32[4,8]{1,0}, f32[8]{0}) tuple(%update, %twice)
}

%hand (given: f32[8]) -> bf16[8] {
  %given = f32[8]{0} parameter(0)
  ROOT %narrow = bf16[8]{0} convert(%given)
}

%body (w: (s32[], f32[4,8], bf16[8], f32[8])) -> (s32[], f32[4,8], bf16[8], f32[8]) {
  %w = (s32[], f32[4,8]{1,0}, bf16[8]{0}, f32[8]{0}) parameter(0)
  %i = s32[] get-tuple-element(%w), index=0
  %all = f32[4,8]{1,0} get-tuple-element(%w), index=1
  %carried = bf16[8]{0} get-tuple-element(%w), index=2
  %same = f32[8]{0} get-tuple-element(%w), index=3
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %fused = (f32[4,8]{1,0}, f32[8]{0}) fusion(%all, %carried, %i), kind=kLoop, calls=%put
  %new = bf16[8]{0} tanh(%carried), metadata={op_name="tanh"}
  ROOT %out = (s32[], f32[4,8]{1,0}, bf16[8]{0}, f32[8]{0}) tuple(%next, %fused#0, %new, %same)
}

%less (w.1: (s32[], f32[4,8], bf16[8], f32[8])) -> pred[] {
  %w.1 = (s32[], f32[4,8]{1,0}, bf16[8]{0}, f32[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%w.1), index=0
  %four = s32[] constant(4)
  ROOT %go = pred[] compare(%i.1, %four), direction=LT
}

ENTRY %main (a: f32[8], b: f32[4,8]) -> f32[4,8] {
  %a = f32[8]{0} parameter(0), metadata={op_name="state['a']"}
  %b = f32[4,8]{1,0} parameter(1)
  %start = s32[] constant(0)
  %cast = bf16[8]{0} fusion(%a), kind=kLoop, calls=%hand
  %copied = (f32[8]{0:S(1)}, f32[8]{0}, u32[]) copy-start(%a)
  %copied.1 = f32[8]{0:S(1)} copy-done(%copied)
  %into = (s32[], f32[4,8]{1,0}, bf16[8]{0}, f32[8]{0}) tuple(%start, %b, %cast, %copied.1)
  %loop = (s32[], f32[4,8]{1,0}, bf16[8]{0}, f32[8]{0}) while(%into), condition=%less, body=%body
  ROOT %r = f32[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ("name", "index", "origin"),
    [
        ("a", "", "a"),
        ("cast", "", "a"),  # only its precision is another
        ("r", "", "new"),  # rows of it are what the loop carried, which is the last round's tanh
        ("loop", "1", "new"),
        ("w", "1", "new"),
        ("fused", "1", "fused"),
        ("w", "2", "new"),
        ("loop", "3", "a"),  # through the loop, and a copy into other memory
        ("w", "3", "a"),
        ("absent", "", None),
    ],
)
def test_origins(name: str, index: str, origin: str | None) -> None:
    found = Origins(hlo.parse(PROGRAM)).find(name, index)
    assert (found and found.name) == origin
