"""How often the computations of a program run."""

import re
from typing import NamedTuple

from planning.hlo import Computation, Instruction, Module, root

_KNOWN = r'"known_trip_count":\{"n":"(\d+)"\}'


class Call(NamedTuple):
    """An instruction's use of another computation.

    Attributes:
      computation: its name.
      times: how often it runs each time that the instruction does.
    """

    computation: str
    times: int


def calls(module: Module, caller: Computation, instruction: Instruction) -> list[Call]:
    """The computations that an instruction runs one after another, as scheduled.

    What a fusion or a reduction applies to elements is part of the instruction and not among them,
    nor is what is called asynchronously: an exchange, or the work of another processor.
    All branches of a conditional are, each once, though one of them runs.

    Raises:
      ValueError: if it is a loop that does not run a known number of times.
    """
    if instruction.op == "while":
        body = instruction.attribute(r"\bbody=%?([\w.-]+)")
        return [Call(body, trips(module, caller, instruction))]
    if instruction.op == "conditional":
        many = instruction.attribute(r"branch_computations=\{([^}]*)\}")
        two = re.findall(r"(?:true|false)_computation=%?([\w.-]+)", instruction.attributes)
        return [Call(name, 1) for name in re.findall(r"[\w.-]+", many) or two]
    if instruction.op == "call":
        return [Call(instruction.calls, 1)]
    return []


def trips(module: Module, caller: Computation, loop: Instruction) -> int:
    """How often the body of a `while` runs.

    Where the compiler does not say it: from a counter that is compared with a constant, and to
    which the body adds one. It begins with the constant it is given, or else with 0, as counters
    of scans and rings do.

    Raises:
      ValueError: if the loop does not end by counting.
    """
    if known := loop.attribute(_KNOWN):
        return int(known)
    condition = module.computations[loop.attribute(r"\bcondition=%?([\w.-]+)")]
    body = module.computations[loop.attribute(r"\bbody=%?([\w.-]+)")]
    end = root(condition)
    if end.op != "compare" or end.attribute(r"direction=(\w+)") != "LT":
        raise ValueError(f"{loop.name}: a loop that does not end by counting: {end}")
    counter, limit = (condition[name] for name in end.operands)
    index = counter.attribute(r"index=(\d+)")
    if limit.op != "constant" or counter.op != "get-tuple-element":
        raise ValueError(f"{loop.name}: a loop that does not end by counting: {end}")
    step = 1
    after = body.get(root(body).operands[int(index)])
    for name in after.operands if after else []:
        if name in body and body[name].op == "constant":
            step = int(body[name].inside)
    start = _start(caller, loop, int(index))
    return max(0, -(-(int(limit.inside) - start) // step))


def _start(caller: Computation, loop: Instruction, index: int) -> int:
    given = caller.get(loop.operands[0])
    if given and given.op == "tuple":
        given = caller.get(given.operands[index])
        while given and given.op in ("copy", "copy-done", "copy-start"):
            given = caller.get(given.operands[0])
    return int(given.inside) if given and given.op == "constant" else 0
