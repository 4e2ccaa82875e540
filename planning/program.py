"""What a compiled program says of itself: what a device computes, exchanges and holds.

    program = build(step.lower(state, fixed, batch), mesh)

compiles a step, for devices that need not be here, and reads it; `read` reads one that is compiled
already. Both look at the text of the program as it was scheduled for one device (all run the same)
and at what XLA says of its memory.
"""

import dataclasses
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh

from planning import buffers, hlo
from planning.exchanges import Exchange
from planning.grid import grid
from planning.sources import Sources
from planning.steps import Step, exchanges, steps
from planning.work import Schedule, Work

_OVER = (
    re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
    re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
)


class Memory(NamedTuple):
    """Bytes of a device's main memory that a program needs.

    Attributes:
      arguments: among them the state that is donated.
      outputs: without those that take the place of arguments.
      aliased: of the arguments, what outputs take the place of.
      temporaries: what lies there while it runs, gaps included.
      constants: that come with the program; 0 where XLA did not tell (`read` without a folder).
      code: the program itself; 0 where it is not known, as of programs that do not fit.
      host: of the host's memory, for what is offloaded; 0 for programs that do not fit.
      needed, available: by the compiler's own count, if it refuses the program because it needs
        more than a device has; 0 if it does not. Available is rounded by it.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    constants: int = 0
    code: int = 0
    host: int = 0
    needed: int = 0
    available: int = 0

    @property
    def total(self) -> int:
        """Bytes of a device, all in all."""
        return self.arguments + self.outputs + self.temporaries + self.constants + self.code

    @property
    def over(self) -> int:
        """Bytes by which it does not fit; 0 if the compiler takes it."""
        return max(0, self.needed - self.available)


@dataclasses.dataclass(frozen=True)
class Program:
    """A program on one device.

    Attributes:
      work: what it computes. The compiler's cycles are 0 where it estimates none: on all but TPUs,
        and for a program that does not fit.
      exchanges: with other devices.
      memory: how much it needs.
      live: what lies in memory when most of it is in use, largest first; empty where XLA did not
        tell (`read` without a folder).
      uncounted: loops that do not say how often they run, and are counted once.
      steps: the same work and exchanges, one after another.
    """

    work: Work
    exchanges: tuple[Exchange, ...]
    memory: Memory
    live: tuple[buffers.Buffer, ...]
    uncounted: tuple[str, ...]
    steps: tuple[Step, ...] = dataclasses.field(repr=False)


def build(
    lowered: jax.stages.Lowered,
    mesh: Mesh | AbstractMesh,
    options: Mapping[str, str | bool] | None = None,
) -> Program:
    """Compiles a program and reads it, also one that a TPU's memory cannot hold.

    Args:
      lowered: of a jitted function.
      mesh: whose axes its exchanges are told along.
      options: to the compiler, beside the function's own.

    Raises:
      jax.errors.JaxRuntimeError: if it does not compile for another reason than memory.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            compiled = lowered.compile({**(options or {}), "xla_dump_to": name})
        except jax.errors.JaxRuntimeError as error:
            over = _over(str(error))
            text = buffers.text_of(folder)
            if not over or not text:
                raise
            return _refused(text, mesh, folder, *over)
        return read(compiled, mesh, folder)


def read(
    compiled: jax.stages.Compiled, mesh: Mesh | AbstractMesh, folder: Path | None = None
) -> Program:
    """Reads a compiled program.

    Args:
      compiled: the program.
      mesh: whose axes its exchanges are told along.
      folder: where it was compiled with the option `xla_dump_to`, its value.
    """
    module = hlo.parse(str(compiled.as_text()))
    found = buffers.read(folder, module, Sources(module)) if folder else None
    said = compiled.memory_analysis()
    assert said is not None
    # Where XLA wrote its buffers they are exact: what it says leaves out large constants.
    memory = Memory(
        arguments=said.argument_size_in_bytes,
        outputs=said.output_size_in_bytes - said.alias_size_in_bytes,
        aliased=said.alias_size_in_bytes,
        temporaries=said.temp_size_in_bytes,
    )
    return _program(
        module,
        mesh,
        found,
        (_written(found) if found else memory)._replace(
            code=said.generated_code_size_in_bytes,
            host=said.host_argument_size_in_bytes
            + said.host_output_size_in_bytes
            - said.host_alias_size_in_bytes
            + said.host_temp_size_in_bytes,
        ),
    )


def _refused(text: str, mesh: Mesh | AbstractMesh, folder: Path, said: int, has: int) -> Program:
    """A program that does not fit, of which there is only what XLA wrote."""
    module = hlo.parse(text)
    found = buffers.read(folder, module, Sources(module))
    memory = _written(found) if found else Memory(0, 0, 0, 0)
    needed = found.total if found else said
    return _program(module, mesh, found, memory._replace(needed=needed, available=has))


def _written(found: buffers.Buffers) -> Memory:
    return Memory(found.arguments, found.outputs, found.aliased, found.temporaries, found.constants)


def _program(
    module: hlo.Module, mesh: Mesh | AbstractMesh, found: buffers.Buffers | None, memory: Memory
) -> Program:
    schedule = Schedule(module)
    taken = steps(schedule, Sources(module), grid(mesh))
    live = found.live if found else ()
    uncounted = tuple(schedule.uncounted)
    return Program(schedule.work(), exchanges(taken), memory, live, uncounted, taken)


def _over(message: str) -> tuple[int, int] | None:
    """Bytes that are needed and that there are, of an error that tells a program does not fit."""
    for pattern in _OVER:
        if found := pattern.search(message):
            return _bytes(found[1], found[2]), _bytes(found[3], found[4])
    return None


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * 1024 ** " KMGT".index(unit or " "))
