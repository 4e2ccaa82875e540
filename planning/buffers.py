"""What lies in a device's memory when a compiled program needs most of it.

XLA tells no program's buffers by a public name of JAX, but writes them where it is asked to
(`xla_dump_to`): what is assigned to which place in memory, and from when to when each value is
needed. It does so for programs that do not fit, too.
"""

import itertools
import re
from pathlib import Path
from typing import NamedTuple

from planning.hlo import Instruction, Module, Shape, shapes
from planning.origins import Origins
from planning.sources import Source, Sources

_ALLOCATION = re.compile(r"allocation \d+: size (\d+)(?:, color (\d+))?(?:, page \d+)?, (.*):$")
_VALUE = re.compile(
    r" value: <\d+ ([\w.-]+)(?:\{([\d,]*)\})?.*? @\d+> \(size=(\d+),offset=(\d+)\): (.*)$"
)
_RANGE = re.compile(r"    ([\w.-]+)\{([\d,]*)\}:(\d+)-(\d+)$")


class Buffer(NamedTuple):
    """A part of a device's memory.

    Attributes:
      bytes: its size, with what its layout pads.
      shape: of what lies in it.
      kind: "argument", "output", "constant" or "temporary"; what is both argument and output (the
        state that is donated) is an argument.
      name: of the instruction that writes it.
      source: where that comes from. Of an argument, its name is that of the argument.
    """

    bytes: int
    shape: Shape
    kind: str
    name: str
    source: Source


class Buffers(NamedTuple):
    """A device's main memory.

    Attributes:
      arguments, outputs, constants: bytes of each; outputs that take the place of arguments are
        counted as arguments.
      aliased: of the arguments, what outputs take the place of.
      temporaries: bytes that are set aside for all others.
      used: how much of those is needed at a time; the rest is lost to gaps.
      live: all buffers of the moment at which most is needed, largest first.
    """

    arguments: int
    outputs: int
    aliased: int
    constants: int
    temporaries: int
    used: int
    live: tuple[Buffer, ...]

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return self.arguments + self.outputs + self.constants + self.temporaries


class _Value(NamedTuple):
    """A result of an instruction and its place."""

    name: str
    part: str
    bytes: int
    offset: int
    shape: Shape


def read(folder: Path, module: Module, sources: Sources) -> Buffers | None:
    """Reads what XLA wrote.

    Args:
      folder: as given to `xla_dump_to`, for the compilation of one program.
      module: the program.
      sources: of its instructions.

    Returns:
      None where XLA wrote nothing, as of a program that comes from a cache.
    """
    assignment, ranges = (_largest(folder, end) for end in ("buffer-assignment", "live-range"))
    if not assignment or not ranges:
        return None
    return of_text(assignment.read_text(), ranges.read_text(), module, sources)


def text_of(folder: Path) -> str:
    """The program as it was compiled, "" where XLA wrote none."""
    found = _largest(folder, "after_optimizations")
    return found.read_text() if found else ""


def of_text(assignment: str, ranges: str, module: Module, sources: Sources) -> Buffers:
    """Reads the text of a buffer assignment and of live ranges."""
    live = {
        (found[1], found[2]): (int(found[3]), int(found[4]))
        for found in map(_RANGE.match, ranges.splitlines())
        if found
    }
    origins = Origins(module)
    instructions = {
        name: one for part in module.computations.values() for name, one in part.items()
    }
    totals = {"argument": 0, "output": 0, "constant": 0, "temporary": 0}
    used = aliased = 0
    buffers: list[Buffer] = []

    def source(values: list[_Value]) -> Source:
        found = [origins.find(value.name, value.part) for value in values]
        found += [instructions.get(value.name) for value in values]
        known = [sources.of(one.attributes) for one in found if one]
        return max(known, key=lambda s: (bool(s.lines), bool(s.name)), default=Source("", ()))

    for size, kind, is_output, values in _allocations(assignment):
        totals[kind] += size
        aliased += size if kind == "argument" and is_output else 0
        if kind != "temporary":
            first = sorted(values, key=lambda v: _op(instructions, v.name) != "parameter")[:1]
            buffers += [Buffer(size, v.shape, kind, v.name, source([v])) for v in first]
            continue
        moment, now = _peak(values, live)
        used += now
        for same in _at(moment, values, live):
            one = same[0]
            buffers.append(Buffer(one.bytes, one.shape, kind, one.name, source(same)))
    buffers.sort(key=lambda one: -one.bytes)
    return Buffers(
        arguments=totals["argument"],
        outputs=totals["output"],
        aliased=aliased,
        constants=totals["constant"],
        temporaries=totals["temporary"],
        used=used,
        live=tuple(buffers),
    )


def _allocations(text: str) -> list[tuple[int, str, bool, list[_Value]]]:
    """Size, kind, whether it is an output, and values of each allocation in main memory."""
    found: list[tuple[int, str, bool, list[_Value]]] = []
    values: list[_Value] = []
    for line in text.splitlines():
        if head := _ALLOCATION.match(line):
            values = []
            color, kind = int(head[2] or 0), _kind(head[3])
            if color == 0 and kind:
                found.append((int(head[1]), kind, "live-out" in head[3], values))
        elif one := _VALUE.match(line):
            shape = next(iter(shapes(one[5])), Shape("token", ()))
            values.append(_Value(one[1], one[2] or "", int(one[3]), int(one[4]), shape))
    return found


def _op(instructions: dict[str, Instruction], name: str) -> str:
    return instructions[name].op if name in instructions else ""


def _kind(text: str) -> str:
    if text.startswith("parameter"):
        return "argument"
    for mark, kind in {"preallocated-temp": "temporary", "constant": "constant"}.items():
        if mark in text:
            return kind
    return "output" if "live-out" in text else ""


def _peak(values: list[_Value], live: dict[tuple[str, str], tuple[int, int]]) -> tuple[int, int]:
    """The moment at which most bytes hold something that is needed, and how many they are."""
    spans = sorted(
        (*live[v.name, v.part], v.offset, v.offset + v.bytes)
        for v in values
        if (v.name, v.part) in live
    )
    best = (0, 0)
    here: list[tuple[int, int, int, int]] = []
    for moment, new in itertools.groupby(spans, key=lambda span: span[0]):
        here = [span for span in here if span[1] >= moment] + list(new)
        taken = end = 0
        for _, _, first, last in sorted(here, key=lambda span: span[2]):
            taken += max(0, last - max(first, end))
            end = max(end, last)
        if taken > best[1]:
            best = (moment, taken)
    return best


def _at(
    moment: int, values: list[_Value], live: dict[tuple[str, str], tuple[int, int]]
) -> list[list[_Value]]:
    """For each place that is needed at a moment the values that lie there, those needed then first.

    A value that is handed on without being copied, as through a loop, has several names.
    """
    places: dict[tuple[int, int], list[_Value]] = {}
    for value in values:
        if _needed(value, moment, live):
            places.setdefault((value.offset, value.bytes), []).append(value)
    found = []
    for place, here in places.items():
        same = [v for v in values if (v.offset, v.bytes) == place and v.shape == here[0].shape]
        same.sort(key=lambda v: not _needed(v, moment, live))
        found.append(same)
    return found


def _needed(value: _Value, moment: int, live: dict[tuple[str, str], tuple[int, int]]) -> bool:
    first, last = live.get((value.name, value.part), (0, -1))
    return first <= moment <= last


def _largest(folder: Path, end: str) -> Path | None:
    """Of the programs in a folder the largest: the others are small helpers."""
    found = sorted(folder.glob(f"*after_optimizations*{end}.txt"), key=lambda p: p.stat().st_size)
    if end == "after_optimizations":
        found = sorted(folder.glob(f"*{end}.txt"), key=lambda p: p.stat().st_size)
    return found[-1] if found else None
