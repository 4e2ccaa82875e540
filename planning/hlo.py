"""The text of a compiled program (`compiled.as_text()`), as instructions.

XLA writes a program as computations, one of them the entry; an instruction is a line, or several
where an attribute holds line breaks. Instructions of a scheduled program stand in the order in
which they begin.
"""

import functools
import math
import re
from typing import NamedTuple

HOST = 5
"""The memory space of the host, to which arrays are offloaded."""

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\(")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_TILED = re.compile(r"([\d,]+):T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_CALLED = re.compile(r"(?:calls|to_apply|called_computations)=\{?%?([\w.-]+)")


class Shape(NamedTuple):
    """An array.

    Attributes:
      dtype: in XLA's terms, as bf16.
      dims: elements along each dimension.
      space: the memory it lies in: 0 is a device's main memory, on a TPU 1 is its VMEM; HOST.
      padding: elements that its layout adds, so that it consists of whole tiles.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0
    padding: int = 0

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Their size, without what a layout pads."""
        return -(-self.elements * _bits(self.dtype) // 8)

    @property
    def stored(self) -> int:
        """Bytes that it takes in memory."""
        return -(-(self.elements + self.padding) * _bits(self.dtype) // 8)


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: unique in the program.
      results: the arrays it makes: of a tuple all parts, tuples inside tuples laid flat.
      op: in XLA's terms, as "all-gather-start".
      inside: what stands between its parentheses.
      attributes: what stands after them.
      is_root: its results are those of the computation.
    """

    name: str
    results: tuple[Shape, ...]
    op: str
    inside: str
    attributes: str
    is_root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it takes."""
        return re.findall(r"%([\w.#-]+)", self.inside)

    @property
    def calls(self) -> str:
        """The computation that it applies, "" if it applies none (or several)."""
        found = _CALLED.search(self.attributes)
        return found[1] if found else ""

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern in its attributes, "" where it is not found."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]
"""Instructions by name, in the order of the schedule."""


class Module(NamedTuple):
    """A program.

    Attributes:
      entry: the name of the computation that is run.
      computations: all of them by name.
      head: the lines before the first one.
    """

    entry: str
    computations: dict[str, Computation]
    head: tuple[str, ...]


def parse(text: str) -> Module:
    """Reads a compiled program.

    Raises:
      ValueError: if the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    head: list[str] = []
    lines: list[str] = []
    current: Computation | None = None
    entry = ""

    def close() -> None:
        """What follows an instruction without being one belongs to it."""
        if lines and current is not None:
            one = _instruction("\n".join(lines))
            for part in one.operands:
                if "#" in part and part not in current:
                    current[part] = _part(current, part)
            current[one.name] = one
        lines.clear()

    for line in text.splitlines():
        if line.startswith((" ", "\t")) and _INSTRUCTION.match(line):
            close()
            lines.append(line)
        elif found := _COMPUTATION.match(line):
            close()
            current = computations.setdefault(found[2], {})
            entry = found[2] if found[1] else entry
        elif line == "}":
            close()
        elif current is None:
            head.append(line)
        elif lines:
            lines.append(line)
    close()
    if not entry:
        raise ValueError("the text of a compiled program has an ENTRY computation; this has none")
    return Module(entry, computations, tuple(head))


def shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a type, as `(f32[8,128]{1,0:T(8,128)S(1)}, s32[])`."""
    found = []
    for dtype, dims, layout in _SHAPE.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(n) for n in re.findall(r"\d+", dims))
        found.append(Shape(dtype, sizes, int(space[1]) if space else 0, _padding(sizes, layout)))
    return tuple(found)


def _padding(dims: tuple[int, ...], layout: str) -> int:
    """Of a layout as 1,0:T(8,128): dimensions from the one whose neighbours lie side by side; the
    tile is of the first of them, the nearest last."""
    if not (found := _TILED.match(layout)) or not dims:
        return 0
    order, tile = ([int(n) for n in part.split(",")] for part in found.groups())
    sizes = dict(enumerate(dims))
    for dim, side in zip(order, reversed(tile), strict=False):
        sizes[dim] = -(-sizes[dim] // side) * side
    return math.prod(sizes.values()) - math.prod(dims)


def root(computation: Computation) -> Instruction:
    """The instruction whose results are those of the computation."""
    return next(one for one in computation.values() if one.is_root)


def taken(computation: Computation, instruction: Instruction) -> list[Shape]:
    """The arrays that an instruction takes."""
    found: list[Shape] = []
    for name in instruction.operands:
        if name in computation:
            found += computation[name].results
    return found


def _instruction(line: str) -> Instruction:
    found = _INSTRUCTION.match(line)
    assert found
    depth = 1
    for paren in re.compile(r"[()]").finditer(line, found.end()):
        depth += 1 if paren[0] == "(" else -1
        if not depth:
            inside, after = line[found.end() : paren.start()], line[paren.end() :]
            return Instruction(found[2], shapes(found[3]), found[4], inside, after, bool(found[1]))
    raise ValueError(f"an instruction without its closing parenthesis: {line[:200]}")


def _part(computation: Computation, name: str) -> Instruction:
    """A part of a tuple, written as %tuple#3, as the get-tuple-element that it is short for."""
    whole, _, index = name.rpartition("#")
    results = computation[whole].results[int(index) : int(index) + 1]
    return Instruction(
        name, results, "get-tuple-element", f"%{whole}", f", index={index}", is_root=False
    )


@functools.cache
def _bits(dtype: str) -> int:
    """Of one element: the number that the name begins with, as bf16 and f8e4m3fn."""
    if dtype == "pred":
        return 8
    number = re.match(r"[a-z]+(\d+)", dtype)
    return int(number[1]) if number else 0  # token and opaque are no arrays
