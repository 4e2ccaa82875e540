"""What the devices of a compiled program exchange: kind, bytes, mesh axes, beginning and end.

Exchanges are synchronous instructions, pairs of -start and -done, wrapped in asynchronous calls, or
parts of fusions: the compiler of TPUs lets an exchange go on inside the fusions that stand between
its beginning and its end ("async collective fusion"), each of which repeats the instruction, and
makes fusions of an all-reduce of which a device keeps a part. Between slices of TPUs they are pairs
of send and recv.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from planning import groups
from planning.grid import Grid
from planning.hlo import Computation, Instruction, Module, taken
from planning.sources import Source, Sources
from planning.traffic import COLLECTIVES

_TYPES = {"ONE_TO_ONE": "collective-permute"}  # what slices call otherwise
_RENDEZVOUS = r'_xla_host_transfer_rendezvous="([^"]*)"'
_TRANSFER = r'_xla_megascale_transfer_type="(\w+)"'


class Exchange(NamedTuple):
    """One exchange of a program, as one device sees it.

    Attributes:
      name: of its instruction; of a pair, of the first.
      kind: "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all" or
        "collective-permute".
      axes: of the mesh, along which it goes (`planning/grid.py`).
      devices: that exchange with one another: n. Of a collective-permute, as many as
        there are along its axes.
      between_slices: it goes from one slice of TPUs to another, over the data center's network.
      sent: bytes that a device sends each time, the least that is possible when each is sent on to
        a neighbour: of operands of b bytes all-gather (n - 1) b, all-reduce 2 (n - 1) / n b,
        reduce-scatter and all-to-all (n - 1) / n b (ragged: if the rows are spread evenly),
        collective-permute b.
      ahead: of a collective-permute, to the how manieth device after itself along its axes most of
        the devices send (planning/grid.py).
      times: it runs.
      asynchronous: it has a beginning and an end, between which other things are done.
      source: where it comes from; of several that the compiler combined, one.
    """

    name: str
    kind: str
    axes: tuple[str, ...]
    devices: int
    between_slices: bool
    sent: int
    ahead: int
    times: int
    asynchronous: bool
    source: Source


class Event(NamedTuple):
    """An instruction, and what begins and ends with it.

    Attributes:
      instruction: it.
      ends: keys of exchanges that are waited for before it.
      begins: exchanges by the keys that name their ends.
    """

    instruction: Instruction
    ends: tuple[str, ...]
    begins: tuple[tuple[str, Exchange], ...]


class _Open(NamedTuple):
    """An exchange that has begun."""

    instruction: Instruction
    where: Computation  # that the instruction stands in
    kind: str
    asynchronous: bool


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads the exchanges of a program.

    Attributes:
      module: the program.
      sources: of its instructions.
      grid: the mesh that it is for.
    """

    module: Module
    sources: Sources
    grid: Grid

    def events(self, computation: Computation) -> Iterator[Event]:
        """The instructions of a computation, with the exchanges that begin and end with each.

        What a device does with itself alone is left out.

        Raises:
          ValueError: if the devices are not those of the mesh.
        """
        going: collections.Counter[str] = collections.Counter()  # by what names their end
        for instruction in computation.values():
            ends = [key for key in _ends(self.module, instruction) if going[key]]
            going.subtract(ends)
            begun = []
            for key, one in _begins(self.module, computation, instruction, self._started):
                exchange = self._exchange(one)
                if exchange.axes:
                    begun.append((key, exchange))
                if one.asynchronous:
                    going[key] += 1
            yield Event(instruction, tuple(ends), tuple(begun))

    @functools.cached_property
    def _started(self) -> frozenset[str]:
        """What names exchanges that begin with one fusion and end with another.

        Between them other fusions have parts of them, also in a loop that stands between.
        """
        return frozenset(
            _channel(one)
            for inside in self.module.computations.values()
            if _has(inside, "AsyncCollectiveStart")
            for one in inside.values()
            if one.op in COLLECTIVES
        )

    def _exchange(self, one: _Open) -> Exchange:
        attributes = one.instruction.attributes
        across = one.instruction.op == "send"
        partitions = int(_head(self.module, r"num_partitions=(\d+)") or 0)
        ahead = 0
        if across:
            members = groups.across_slices(attributes)
            axes = self.grid.axes_across(members)
        else:
            permuted = one.kind == "collective-permute"
            members = (
                groups.pairs(attributes)
                if permuted
                else groups.replica_groups(attributes, partitions or len(self.grid.ids))
            )
            axes = self.grid.axes(members, partitions)
            ahead = self.grid.ahead(members, partitions) if permuted else 0
        n = members.shape[-1]
        operands = taken(one.where, one.instruction)
        if one.kind == "ragged-all-to-all" or across:
            operands = operands[:1]  # the others are offsets and sizes; a token
        size = sum(shape.bytes for shape in operands)
        if one.kind == "collective-permute":
            n, sent = math.prod(self.grid.sizes[axis] for axis in axes), size
        else:
            sent = _sent(one.kind, n, size)
        return Exchange(
            name=one.instruction.name,
            kind=one.kind,
            axes=axes,
            devices=n,
            between_slices=across,
            sent=sent,
            ahead=ahead,
            times=1,
            asynchronous=one.asynchronous,
            source=self.sources.of(attributes),
        )


def _begins(
    module: Module,
    computation: Computation,
    instruction: Instruction,
    started: Collection[str],
) -> list[tuple[str, _Open]]:
    """What begins with an instruction, with what names its end.

    Args:
      started: see Reader.
    """
    kind = instruction.op.removesuffix("-start")
    if kind in COLLECTIVES:
        later = instruction.op.endswith("-start")
        return [(instruction.name, _Open(instruction, computation, kind, later))]
    if instruction.op == "recv" and (transfer := instruction.attribute(_TRANSFER)):
        meeting = instruction.attribute(_RENDEZVOUS)
        send = next(
            one
            for one in computation.values()
            if one.op == "send" and one.attribute(_RENDEZVOUS) == meeting
        )
        kind = _TYPES.get(transfer, transfer.lower().replace("_", "-"))
        return [(instruction.name, _Open(send, computation, kind, True))]
    if instruction.op in ("async-start", "custom-call-update"):
        # Units that exchange by themselves are started first, and then told of what.
        start = instruction if instruction.calls else computation.get(instruction.operands[0])
        inside = module.computations.get(start.calls, {}) if start else {}
        return [
            (instruction.name, _Open(one, inside, one.op, True))
            for one in inside.values()
            if one.op in COLLECTIVES
        ]
    if instruction.op == "fusion":
        inside = module.computations.get(instruction.calls, {})
        if _has(inside, "AsyncCollectiveDone"):
            return []
        begins = _has(inside, "AsyncCollectiveStart")
        scattered = instruction.calls.startswith("all-reduce-scatter")
        found = []
        for one in inside.values():
            if one.op in COLLECTIVES and (begins or _channel(one) not in started):
                kind = "reduce-scatter" if scattered else one.op
                found.append((_channel(one), _Open(one, inside, kind, begins)))
        return found
    return []


def _ends(module: Module, instruction: Instruction) -> list[str]:
    """What names the exchanges that end with an instruction."""
    if instruction.op.endswith("-done"):
        return instruction.operands[:1]
    if instruction.op == "fusion":
        inside = module.computations.get(instruction.calls, {})
        if _has(inside, "AsyncCollectiveDone"):
            return [_channel(one) for one in inside.values() if one.op in COLLECTIVES]
    return []


def _has(computation: Computation, target: str) -> bool:
    return any(
        one.op == "custom-call" and f'"{target}"' in one.attributes for one in computation.values()
    )


def _channel(collective: Instruction) -> str:
    """What the repetitions of an exchange in the fusions beside it have in common."""
    return "channel " + collective.attribute(r"channel_id=(\d+)")


def _sent(kind: str, n: int, size: int) -> int:
    if kind == "all-gather":
        return (n - 1) * size
    part = (n - 1) * size // n
    return 2 * part if kind == "all-reduce" else part


def _head(module: Module, pattern: str) -> str:
    found = re.search(pattern, module.head[0]) if module.head else None
    return found[1] if found else ""
