"""What a compiled program computes on one device, loops multiplied out."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

from planning import loops, products
from planning.hlo import Computation, Instruction, Module
from planning.kernels import Kernel, kernel
from planning.traffic import traffic

_NUMBERS = ("product_cycles", "other_cycles", "flops", "bytes", "host_bytes")


@dataclasses.dataclass(frozen=True)
class Work:
    """Of some instructions.

    Attributes:
      product_cycles: the compiler's estimate for those that multiply matrices, what is fused with
        the products included. It estimates on TPUs alone, and neither for kernels nor exchanges.
      other_cycles: its estimate for all others.
      flops: of the products of matrices, kernels left out.
      bytes: read from and written to main memory, kernels included (planning/traffic.py).
      host_bytes: between the device and its host, of what is offloaded.
      kernels: by name.
    """

    product_cycles: int = 0
    other_cycles: int = 0
    flops: int = 0
    bytes: int = 0
    host_bytes: int = 0
    kernels: Mapping[str, Kernel] = dataclasses.field(default_factory=dict)

    @property
    def cycles(self) -> int:
        """The compiler's estimate for all that it estimates."""
        return self.product_cycles + self.other_cycles

    @property
    def kernel_flops(self) -> int:
        """Of all kernels, where they are known (planning/kernels.py)."""
        return sum(one.flops for one in self.kernels.values())


def total(parts: Iterable[tuple[int, Work]]) -> Work:
    """The sum of works, each done so many times."""
    sums = dict.fromkeys(_NUMBERS, 0)
    kernels: dict[str, Kernel] = {}
    for times, part in parts:
        for name in _NUMBERS:
            sums[name] += times * getattr(part, name)
        for name, one in part.kernels.items():
            before = kernels.get(name, Kernel(0, 0, 0))
            kernels[name] = Kernel(*(a + times * b for a, b in zip(before, one, strict=True)))
    return Work(**sums, kernels=kernels)


class Schedule:
    """What runs when, and what it costs.

    Attributes:
      module: the program.
      uncounted: names of loops that run an unknown number of times and are counted once.
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.uncounted: list[str] = []
        self._cost = functools.cache(self._cost_now)

    def calls(self, caller: Computation, instruction: Instruction) -> list[loops.Call]:
        """The computations that an instruction runs; of a conditional's branches the longest."""
        try:
            called = loops.calls(self.module, caller, instruction)
        except ValueError:
            if instruction.name not in self.uncounted:
                self.uncounted.append(instruction.name)
            called = [loops.Call(instruction.attribute(r"\bbody=%?([\w.-]+)"), 1)]
        if instruction.op == "conditional":
            called = [max(called, key=lambda call: _length(self._cost(call.computation)))]
        return called

    def computations(self) -> list[loops.Call]:
        """All computations that run, each as often as it does; those of fusions are not told."""
        found: dict[str, int] = {}

        def visit(name: str, times: int) -> None:
            found[name] = found.get(name, 0) + times
            computation = self.module.computations[name]
            for instruction in computation.values():
                for call in self.calls(computation, instruction):
                    visit(call.computation, times * call.times)

        visit(self.module.entry, 1)
        return [loops.Call(name, times) for name, times in found.items()]

    def work(self) -> Work:
        """Of the whole program."""
        return self._cost(self.module.entry)

    def of(self, computation: Computation, instruction: Instruction) -> Work:
        """Of one instruction, with all that it runs."""
        called = self.calls(computation, instruction)
        if called:
            return total((call.times, self._cost(call.computation)) for call in called)
        cycles = int(instruction.attribute(r'"estimated_cycles":"(\d+)"') or 0)
        flops = products.flops(self.module, computation, instruction)
        found = kernel(computation, instruction)
        moved = traffic(self.module, computation, instruction)
        return Work(
            product_cycles=cycles if flops else 0,
            other_cycles=0 if flops else cycles,
            flops=flops,
            bytes=moved.main,
            host_bytes=moved.host,
            kernels=dict([found]) if found else {},
        )

    def _cost_now(self, name: str) -> Work:
        computation = self.module.computations[name]
        return total((1, self.of(computation, one)) for one in computation.values())


def _length(work: Work) -> tuple[int, int, int]:
    """What orders works by the time they take, where no time is known."""
    return work.cycles, work.flops + work.kernel_flops, work.bytes
