"""Calls of kernels that are not the compiler's own, of which it estimates nothing."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from planning.hlo import Computation, Instruction, Shape, taken
from sharding.rounds import FIRST, ROOM

PRODUCTS = {"fwd": 2, "dkv": 4, "dq": 3}
"""Of matrices, in the phases of attention."""

_TARGET = 'custom_call_target="tpu_custom_call"'
_ESTIMATE = re.compile(r'"cost_estimate":\{([^}]*)\}')


class Kernel(NamedTuple):
    """Calls of one kernel.

    Attributes:
      calls: in a run of the program.
      flops: of all of them: what the kernel's author says (`pl.CostEstimate`); where he says
        nothing and it is attention, its products of matrices; if it is causal, half of each.
      bytes: of all of them: what the author says, or what goes in and what comes out.
    """

    calls: int
    flops: int
    bytes: int


def kernel(computation: Computation, instruction: Instruction) -> tuple[str, Kernel] | None:
    """Name and cost of the kernel that an instruction calls; None where it calls none.

    Where tokens have travelled to their experts, of as many rows as come if those are equally busy:
    the author counts all that there is room for.
    """
    if instruction.op != "custom-call" or _TARGET not in instruction.attributes:
        return None
    name = instruction.name.split(".")[0]
    operands = taken(computation, instruction)
    moved = sum(shape.bytes for shape in (*operands, *instruction.results))
    if found := _ESTIMATE.search(instruction.attributes):
        said = {key: int(n) for key, n in re.findall(r'"(\w+)":\s*"?(\d+)', found[1])}
        room = ROOM if f"/{FIRST}/" in instruction.attributes else 1
        flops = round(said.get("flops", 0) / room)
        return name, Kernel(1, flops, said.get("bytes_accessed", moved))
    products = PRODUCTS.get(_phase(name), 0)
    return name, Kernel(1, products * _product(operands) if products else 0, moved)


def _phase(name: str) -> str:
    """Of a kernel of attention; "" of any other."""
    return next((phase for phase in PRODUCTS if f"_{phase}_" in name), "")


class Attention(NamedTuple):
    """The blocks in which a kernel of attention works, of all rows and heads of a device.

    Attributes:
      phase: "fwd", "dkv" or "dq".
      size: of a head.
      side: queries of a block, and keys.
      blocks: that it computes: those that the mask leaves something of.
      lines: of blocks: each has a beginning and an end.
      steps: blocks that it goes through, those that it leaves out with them.
    """

    phase: str
    size: int
    side: int
    blocks: int
    lines: int
    steps: int


def attention(computation: Computation, instruction: Instruction) -> Attention | None:
    """The blocks of a kernel of attention; None of all other instructions."""
    if instruction.op != "custom-call" or _TARGET not in instruction.attributes:
        return None
    phase = _phase(instruction.name)
    operands = taken(computation, instruction)
    floats = [shape for shape in operands if shape.dtype in ("bf16", "f32")]
    side = instruction.attribute(rf"block_q{'' if phase == 'fwd' else '_' + phase}\W+(\d+)")
    if not phase or not floats or not side:
        return None
    queries, keys = (shape.dims for shape in (*floats, *floats)[:2])
    of, high = math.prod(queries[:-2]), queries[-2] // int(side)
    # Where only some blocks of a line are gone through, the mask's first table says how many.
    table = next((shape.dims for shape in operands if shape.dtype == "s8"), ())
    wide = table[-1] if phase != "dkv" and table else keys[-2] // int(side)
    seen = high * wide
    if _half(operands) == 1:
        # Of a line as many as are before it, or fewer; queries may be a part of the rows.
        seen = sum(min(i + 1, wide) for i in range(high)) if wide <= high else seen // 2 + high // 2
    lines = keys[-2] // int(side) if phase == "dkv" else high
    return Attention(phase, queries[-1], int(side), of * seen, of * lines, of * high * wide)


def _half(operands: Sequence[Shape]) -> int:
    """1 where a mask leaves half of a product of attention out, 2 where none does.

    Where a mask is computed from the queries' indices, they stand beside the documents of queries
    and keys (model/kernels/splash_parts.py has a kernel without).
    """
    numbers = [shape for shape in operands if shape.dtype == "s32" and len(shape.dims) > 1]
    return 2 if len(numbers) == 2 else 1


def _product(operands: Sequence[Shape]) -> int:
    """FLOPs of a product of queries [.., heads, T, H] and keys [.., S, H], the first floats."""
    floats = [shape for shape in operands if shape.dtype in ("bf16", "f32")]
    if not floats:
        return 0
    keys = floats[min(1, len(floats) - 1)].dims[-2]
    return floats[0].elements * keys * _half(operands)
