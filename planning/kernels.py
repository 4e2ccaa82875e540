"""Calls of kernels that are not the compiler's own, of which it estimates nothing."""

import math
import re
from typing import NamedTuple

from planning.hlo import Computation, Instruction, taken

_PRODUCTS = {"_fwd_": 2, "_dkv_": 4, "_dq_": 3}  # of matrices, in the phases of attention
_TARGET = 'custom_call_target="tpu_custom_call"'
_ESTIMATE = re.compile(r'"cost_estimate":\{([^}]*)\}')


class Kernel(NamedTuple):
    """Calls of one kernel.

    Attributes:
      calls: in a run of the program.
      flops: of all of them: what the kernel's author says (`pl.CostEstimate`); where he says
        nothing and it is causal attention, its products of matrices, of which half is left out.
      bytes: of all of them: what the author says, or what goes in and what comes out.
    """

    calls: int
    flops: int
    bytes: int


def kernel(computation: Computation, instruction: Instruction) -> tuple[str, Kernel] | None:
    """Name and cost of the kernel that an instruction calls; None where it calls none."""
    if instruction.op != "custom-call" or _TARGET not in instruction.attributes:
        return None
    name = instruction.name.split(".")[0]
    operands = taken(computation, instruction)
    moved = sum(shape.bytes for shape in (*operands, *instruction.results))
    if found := _ESTIMATE.search(instruction.attributes):
        said = {key: int(n) for key, n in re.findall(r'"(\w+)":\s*"?(\d+)', found[1])}
        return name, Kernel(1, said.get("flops", 0), said.get("bytes_accessed", moved))
    # The largest operand is [.., heads, T, H]; a causal product of such has T x heads x T x H.
    products = next((n for key, n in _PRODUCTS.items() if key in name), 0)
    dims = max((shape.dims for shape in operands), key=math.prod, default=())
    flops = products * math.prod(dims) * dims[-2] if len(dims) > 1 else 0
    return name, Kernel(1, flops, moved)
