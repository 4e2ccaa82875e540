"""Calls of kernels that are not the compiler's own, of which it estimates nothing."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from planning.hlo import Computation, Instruction, Shape, taken
from sharding.rounds import FIRST, ROOM

_PRODUCTS = {"_fwd_": 2, "_dkv_": 4, "_dq_": 3}  # of matrices, in the phases of attention
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
    products = next((n for key, n in _PRODUCTS.items() if key in name), 0)
    return name, Kernel(1, products * _product(operands) if products else 0, moved)


def _product(operands: Sequence[Shape]) -> int:
    """FLOPs of a product of queries [.., heads, T, H] and keys [.., S, H], the first floats.

    Where a mask is computed from the queries' indices, they stand beside the documents of queries
    and keys, and half is left out (model/kernels/splash_parts.py has a kernel without).
    """
    floats = [shape for shape in operands if shape.dtype in ("bf16", "f32")]
    numbers = [shape for shape in operands if shape.dtype == "s32" and len(shape.dims) > 1]
    if not floats:
        return 0
    keys = floats[min(1, len(floats) - 1)].dims[-2]
    return floats[0].elements * keys * (2 if len(numbers) == 2 else 1)
