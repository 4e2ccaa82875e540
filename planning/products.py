"""FLOPs of the products of matrices in a compiled program.

A product is a `dot`, or a `convolution`, into which the compiler of TPUs turns every dot; most
stand inside fusions. Two operations, a multiplication and an addition, are counted for each pair of
elements that meet.
"""

import math
import re

from planning.hlo import Computation, Instruction, Module


def flops(module: Module, computation: Computation, instruction: Instruction) -> int:
    """Of one instruction, the fusion it may be looked into."""
    if instruction.op == "fusion":
        inner = module.computations.get(instruction.calls, {})
        return sum(flops(module, inner, one) for one in inner.values())
    if instruction.op == "dot":
        return _dot(computation, instruction)
    if instruction.op == "convolution":
        return _convolution(computation, instruction)
    return 0


def _dot(computation: Computation, dot: Instruction) -> int:
    left = computation[dot.operands[0]].results[0]
    contracted = _numbers(dot.attribute(r"lhs_contracting_dims=\{([\d,]*)\}"))
    return 2 * dot.results[0].elements * math.prod(left.dims[n] for n in contracted)


def _convolution(computation: Computation, convolution: Instruction) -> int:
    """Pairs that meet: outputs x input features x what of the window lies on the input.

    The last matters: products with a batch dimension are convolutions over it whose window lies
    mostly on padding.
    """
    left, right = (computation[name].results[0] for name in convolution.operands[:2])
    result = convolution.results[0]
    labels = convolution.attribute(r"dim_labels=([\w?]+_[\w?]+->[\w?]+)")
    in_labels, kernel_labels, out_labels = re.split(r"_|->", labels)
    groups = int(convolution.attribute(r"batch_group_count=(\d+)") or 1)
    pairs = left.dims[in_labels.index("b")] // groups * right.dims[kernel_labels.index("i")]
    pairs *= result.dims[out_labels.index("f")]
    window = convolution.attribute(r"window=\{([^}]*)\}")
    for axis in range(sum(label.isdigit() for label in out_labels)):
        pairs *= _meetings(
            left.dims[in_labels.index(str(axis))],
            right.dims[kernel_labels.index(str(axis))],
            result.dims[out_labels.index(str(axis))],
            _window(window, axis),
        )
    return 2 * pairs


def _window(text: str, axis: int) -> dict[str, list[int]]:
    """Along one axis: stride, pad (before, after), lhs_dilate, rhs_dilate; not those left out."""
    found = {}
    for key, values in re.findall(r"(\w+)=(\S+)", text):
        found[key] = [int(n) for n in values.split("x")[axis].split("_")]
    return found


def _meetings(inputs: int, kernel: int, outputs: int, window: dict[str, list[int]]) -> int:
    """Pairs of an output and a place in the window, along one axis, that lie on an input."""
    stride, (before, *_) = window.get("stride", [1])[0], window.get("pad", [0, 0])
    holes, spread = window.get("lhs_dilate", [1])[0], window.get("rhs_dilate", [1])[0]
    most = (inputs - 1) * holes  # the place of the last input
    total = 0
    for k in range(kernel):
        first = k * spread - before  # where the first output's window has this place
        if holes == 1:
            lowest = max(0, -(first // stride))  # the first output for which it is not negative
            highest = min(outputs - 1, (most - first) // stride)
            total += max(0, highest - lowest + 1)
        else:
            places = (first + o * stride for o in range(outputs))
            total += sum(0 <= place <= most and place % holes == 0 for place in places)
    return total


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]
