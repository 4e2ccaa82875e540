"""A compiled program as one device goes through it: what it computes, begins and waits for."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from planning.exchanges import Exchange, Reader
from planning.grid import Grid
from planning.kernels import Attention, attention
from planning.sources import Sources
from planning.traffic import Transfer, transfer
from planning.work import Schedule, Work


class Computed(NamedTuple):
    """An instruction's work.

    Attributes:
      work: what it is.
      attention: of a kernel of attention, its blocks.
    """

    work: Work
    attention: Attention | None = None


class Begun(NamedTuple):
    """Something begins that goes on beside what is computed until it is waited for.

    Attributes:
      key: what names its end.
      what: it.
    """

    key: str
    what: Exchange | Transfer


class Ended(NamedTuple):
    """The device waits until what began under this key is done."""

    key: str


class Loop(NamedTuple):
    """Steps that are taken several times; also of what is called once.

    Attributes:
      times: how often.
      steps: of each time.
    """

    times: int
    steps: tuple["Step", ...]


Step = Computed | Begun | Ended | Loop


def steps(schedule: Schedule, sources: Sources, grid: Grid) -> tuple[Step, ...]:
    """The steps of a program, in the order in which it was scheduled.

    Args:
      schedule: the program.
      sources: of its instructions.
      grid: the mesh that it is for.

    Raises:
      ValueError: if the devices are not those of the mesh.
    """
    reader = Reader(schedule.module, sources, grid)
    done: dict[str, tuple[Step, ...]] = {}

    def of(name: str) -> tuple[Step, ...]:
        if name not in done:
            done[name] = tuple(_steps(name))
        return done[name]

    def _steps(name: str) -> Iterator[Step]:
        computation = schedule.module.computations[name]
        for instruction, ends, begins in reader.events(computation):
            yield from map(Ended, ends)
            if instruction.op.endswith("-done") and not ends:
                yield from map(Ended, instruction.operands[:1])  # of a transfer
            if called := schedule.calls(computation, instruction):
                yield from (Loop(call.times, of(call.computation)) for call in called)
            elif moved := transfer(computation, instruction):
                yield Begun(instruction.name, moved)
            elif (work := schedule.of(computation, instruction)) != Work():
                yield Computed(work, attention(computation, instruction))
            for key, exchange in begins:
                yield Begun(key, exchange)
                if not exchange.asynchronous:
                    yield Ended(key)

    return of(schedule.module.entry)


def exchanges(of: Sequence[Step]) -> tuple[Exchange, ...]:
    """All exchanges of a program, those in loops once for the loop, with their number."""
    found: dict[str, Exchange] = {}

    def visit(inside: Sequence[Step], times: int) -> None:
        for step in inside:
            if isinstance(step, Loop):
                visit(step.steps, times * step.times)
            elif isinstance(step, Begun) and isinstance(step.what, Exchange):
                before = found.get(step.what.name)
                now = times + (before.times if before else 0)
                found[step.what.name] = step.what._replace(times=now)

    visit(of, 1)
    return tuple(found.values())
