"""Bytes that the instructions of a compiled program read from and write to a device's memory.

An instruction reads its operands and writes its results, so far as they lie in main memory (on a
TPU much lies in VMEM, and the copies between the two are instructions). A part that is sliced out
counts instead of the whole, and so does a part that is updated in place. Exchanges between devices
are not counted here.
"""

from typing import NamedTuple

from planning.hlo import HOST, Computation, Instruction, Module, Shape, root
from planning.kernels import kernel

COLLECTIVES = frozenset(
    "all-gather all-reduce reduce-scatter all-to-all ragged-all-to-all collective-permute".split()
)
_FREE = COLLECTIVES | frozenset(
    "parameter constant tuple get-tuple-element bitcast while call conditional after-all iota "
    "partition-id replica-id opt-barrier async-start async-update async-done".split()
)
_TRANSFERS = ("copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start")
_SLICES = ("dynamic-slice", "slice", "gather")
_VIEWS = ("bitcast", "reshape")


class Traffic(NamedTuple):
    """Bytes of an instruction.

    Attributes:
      main: read from and written to main memory.
      host: that go to the host's memory or come from it.
    """

    main: int
    host: int


def traffic(module: Module, computation: Computation, instruction: Instruction) -> Traffic:
    """Bytes that one instruction reads and writes; none of a loop or of what it runs."""
    op = instruction.op
    if op in _TRANSFERS:
        return _transferred(computation, instruction)
    if op.removesuffix("-start").removesuffix("-done") in _FREE or op.endswith("-done"):
        return Traffic(0, 0)
    if op == "custom-call" and not kernel(computation, instruction):
        return Traffic(0, 0)
    inner = _inside(module, computation, instruction)
    read = 0
    for number, name in enumerate(instruction.operands):
        whole = _main(computation[name].results) if name in computation else 0
        if whole:
            read += min(whole, _read(module, inner, _parameter(inner, number)))
    return Traffic(read + _written(inner, instruction), 0)


class Transfer(NamedTuple):
    """A copy that goes on beside other things: to the host's memory, from it, or to and from VMEM.

    Attributes:
      bytes: that arrive.
      source, target: the spaces of memory (planning/hlo.py).
    """

    bytes: int
    source: int
    target: int


def transfer(computation: Computation, instruction: Instruction) -> Transfer | None:
    """The copy that begins with an instruction; None where none does."""
    if instruction.op not in _TRANSFERS:
        return None
    given = [computation[name].results[0] for name in instruction.operands[:2]]
    if instruction.op == "dynamic-update-slice-start":
        return Transfer(given[1].stored, given[1].space, given[0].space)
    # A copy names what it makes first, slices their operands.
    arrived = instruction.results[0 if instruction.op == "copy-start" else -2]
    return Transfer(arrived.stored, given[0].space, arrived.space)


def _transferred(computation: Computation, start: Instruction) -> Traffic:
    moved = transfer(computation, start)
    assert moved is not None
    spaces = (moved.source, moved.target)
    return Traffic(moved.bytes * spaces.count(0), moved.bytes * (HOST in spaces))


def _inside(module: Module, computation: Computation, instruction: Instruction) -> Computation:
    """What a fusion does, or one instruction as if it were a fusion of its own."""
    if instruction.op == "fusion":
        return module.computations.get(instruction.calls, {})
    inner = {
        name: Instruction(name, computation[name].results, "parameter", str(n), "", False)
        for n, name in enumerate(instruction.operands)
        if name in computation
    }
    return inner | {instruction.name: instruction._replace(is_root=True)}


def _parameter(inner: Computation, number: int) -> str:
    here = (one.name for one in inner.values() if one.op == "parameter")
    return next((name for name in here if inner[name].inside == str(number)), "")


def _read(module: Module, inner: Computation, name: str) -> int:
    """How much of an array is read by those who use it."""
    total = 0
    for user in inner.values():
        if name not in user.operands:
            continue
        place = user.operands.index(name)
        if user.op in _SLICES and place == 0:
            total += sum(shape.stored for shape in user.results)
        elif user.op in _VIEWS:
            total += _read(module, inner, user.name)
        elif user.op == "fusion":
            deeper = module.computations.get(user.calls, {})
            total += _read(module, deeper, _parameter(deeper, place))
        elif not (
            (user.op == "dynamic-update-slice" and place == 0)
            or user.op in COLLECTIVES
            or user.op == "tuple"
            or (user.op == "custom-call" and not kernel(inner, user))
        ):
            total += _main(inner[name].results, anywhere=True)
    return total


def _written(inner: Computation, instruction: Instruction) -> int:
    end = root(inner)
    if end.op == "custom-call" and not kernel(inner, end):
        return 0  # it begins or ends an exchange
    parts = [inner[name] for name in end.operands] if end.op == "tuple" else [end]
    if len(parts) != len(instruction.results):
        return _main(instruction.results)
    total = 0
    for part, result in zip(parts, instruction.results, strict=True):
        while part.op in _VIEWS and part.operands[0] in inner:
            part = inner[part.operands[0]]
        if result.space or part.op in COLLECTIVES or part.op == "parameter":
            continue
        if part.op == "dynamic-update-slice":
            total += inner[part.operands[1]].results[0].stored
        else:
            total += result.stored
    return total


def _main(shapes: tuple[Shape, ...], anywhere: bool = False) -> int:
    return sum(shape.stored for shape in shapes if anywhere or shape.space == 0)
