"""How long a compiled step should take: the compiler's cycles, and the links' published rates.

A prediction, nothing measured: the compiler's own estimates for what it fuses, at the clock that
the published peak implies; kernels, for which it has no estimate, at the rate of a large product or
that of the memory, whichever is slower; exchanges at what the links sustain, less what the schedule
lets run beside them.
"""

import dataclasses
from collections.abc import Mapping

from planning.chip import Chip
from planning.exchanges import Exchange
from planning.program import Program
from planning.topology import Topology
from planning.torus import links
from planning.work import Work


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of a step.

    Attributes:
      products, other: of fusions with products of matrices, and without.
      kernels: of kernels.
      exchanges: of all exchanges, as if nothing ran beside them.
      exposed: of them, what nothing runs beside.
    """

    products: float
    other: float
    kernels: float
    exchanges: float
    exposed: float

    @property
    def step(self) -> float:
        """All in all."""
        return self.products + self.other + self.kernels + self.exposed


@dataclasses.dataclass(frozen=True)
class Clock:
    """Turns work and exchanges into time on some hardware.

    Attributes:
      topology: whose chip is known.
      sizes: of every mesh axis.
    """

    topology: Topology
    sizes: Mapping[str, int]

    @property
    def chip(self) -> Chip:
        assert self.topology.chip is not None
        return self.topology.chip

    def predicted(self, program: Program) -> Time | None:
        """The time of a step; None where the compiler estimates no cycles."""
        if not self.chip.clock or not program.work.cycles:
            return None
        times = [(one, self.exchange(one)) for one in program.exchanges]
        return Time(
            program.work.product_cycles / self.chip.clock,
            program.work.other_cycles / self.chip.clock,
            self.kernels(program.work),
            sum(one.times * time for one, time in times),
            sum(one.times * max(0.0, time - self.work(one.beside)) for one, time in times),
        )

    def work(self, work: Work) -> float:
        """Seconds of what is computed."""
        assert self.chip.clock
        return work.cycles / self.chip.clock + self.kernels(work)

    def kernels(self, work: Work) -> float:
        """Seconds of kernels: each limited by the matrix units or by the memory."""
        peak, rate = self.chip.bf16 * self.chip.product, self.chip.hbm_rate
        return sum(max(one.flops / peak, one.bytes / rate) for one in work.kernels.values())

    def exchange(self, one: Exchange) -> float:
        """Seconds of an exchange, each time."""
        if not one.axes:
            return 0.0
        over = links(self.topology, self.sizes, one.axes)
        if one.between_slices:
            return one.sent / over.network
        return one.sent / (over.hop if one.kind == "collective-permute" else over.rate)
