"""What is read of a compiled program, of one written by hand."""
# ruff: noqa: E501

from bench import hlo

PROGRAM = """HloModule jit_step, is_scheduled=true

%ring (w: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %w = (s32[], bf16[8,128]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%w), index=0
  %x = bf16[8,128]{1,0} get-tuple-element(%w), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %moved = bf16[8,128]{1,0:T(8,128)} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %made = bf16[8,128]{1,0} fusion(%moved), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"10"}
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

ENTRY %main (a: bf16[8,128], q: bf16[2,4,64,32]) -> bf16[8,128] {
  %a = bf16[8,128]{1,0} parameter(0)
  %q = bf16[2,4,64,32]{3,2,1,0} parameter(1)
  %zero = s32[] constant(0)
  %begin = (s32[], bf16[8,128]{1,0}) tuple(%zero, %a)
  %loop = (s32[], bf16[8,128]{1,0}) while(%begin), condition=%less, body=%ring
  %all = (bf16[8,128]{1,0}, bf16[16,128]{1,0}) all-gather-start(%a), dimensions={0}
  %done = bf16[16,128]{1,0} all-gather-done(%all)
  %splash_mqa_fwd_segmented.3 = bf16[2,4,64,32]{3,2,1,0} custom-call(%q), custom_call_target="tpu_custom_call", operand_layout_constraints={bf16[2,4,64,32]{3,2,1,0}}
  %other = bf16[8,128]{1,0} custom-call(%a), custom_call_target="Sharding"
  ROOT %r = bf16[8,128]{1,0} fusion(%done), kind=kLoop, calls=%inner, backend_config={"estimated_cycles":"5"}
}
"""


def test_loops_are_multiplied_out():
    found = hlo.summarize(PROGRAM)
    runs = 4  # 0, 2, 4 and 6 are less than 7
    assert found.cycles == runs * 10 + 5
    assert found.exchanges == {
        "collective-permute": runs * 8 * 128 * 2,
        "all-gather": 16 * 128 * 2,  # what came out, not what went in
    }
    assert found.exchange_calls == {"collective-permute": runs, "all-gather": 1}


def test_kernels_stand_beside():
    kernels = hlo.summarize(PROGRAM).kernels
    size = 2 * 4 * 64 * 32
    # Two causal products of 64 x 32 by 32 x 64, half of each left out.
    flops = 2 * (2 * 4 * 64 * 64 * 32)
    assert kernels == {"splash_mqa_fwd_segmented": hlo.Kernel(1, flops, 2 * size * 2)}
