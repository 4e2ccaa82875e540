"""How long a compiled step should take: its steps one after another, on published rates.

A prediction, nothing measured. A device computes one thing after another in the order in which the
program was scheduled; exchanges and copies that have begun go on beside it, each set of links doing
one exchange after another, and at their end it waits for what is not done.

- A product, with what is fused into it: the compiler's cycles, of which what they are more than the
  matrix units need at their peak counts by the share that measurements show (Chip.shown).
- Other fusions and copies: their bytes at the memory's rate. (The compiler's cycles for them would
  mean 20 to 60 % of that rate.) What lies in VMEM alone: the compiler's cycles.
- Kernels of attention: libtpu's schedule of them (planning/attention.py), or their bytes, whichever
  takes longer; others at the rate of a large product, or their bytes.
- Exchanges: at what the links sustain (planning/torus.py); copies to the host and back, at the
  rate of its link.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

from planning import attention
from planning.chip import Chip
from planning.exchanges import Exchange
from planning.hlo import HOST
from planning.program import Program
from planning.steps import Begun, Computed, Loop, Step
from planning.topology import Topology
from planning.torus import links
from planning.traffic import Transfer

PRODUCTS, OTHER, KERNELS, COPIES = "products", "other", "kernels", "copies"
_TURNS = 16  # of a loop, after which it is taken to go on as it does
_SAME = 1e-9  # how little two turns may differ to be the same


@dataclasses.dataclass(frozen=True)
class Time:
    """Seconds of a step.

    Attributes:
      products, other: of fusions with products of matrices, and without.
      kernels: of kernels.
      copies: waited for copies to the host's memory and back, and to VMEM.
      exchanges: of all exchanges, as if nothing ran beside them.
      waited: of them, what the device waits for each, by its name.
    """

    products: float
    other: float
    kernels: float
    copies: float
    exchanges: float
    waited: Mapping[str, float]

    @property
    def exposed(self) -> float:
        """Of exchanges, what nothing runs beside."""
        return sum(self.waited.values())

    @property
    def step(self) -> float:
        """All in all."""
        return self.products + self.other + self.kernels + self.copies + self.exposed


@dataclasses.dataclass(frozen=True)
class Clock:
    """Turns what a program does into time on some hardware.

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
        run = _Run(self)
        run.take(program.steps)
        return Time(
            products=run.spent.pop(PRODUCTS, 0.0),
            other=run.spent.pop(OTHER, 0.0),
            kernels=run.spent.pop(KERNELS, 0.0),
            copies=run.spent.pop(COPIES, 0.0),
            exchanges=sum(one.times * self.exchange(one) for one in program.exchanges),
            waited=dict(run.spent),
        )

    def computing(self, step: Computed) -> tuple[str, float]:
        """What kind of work it is, and its seconds."""
        work, chip = step.work, self.chip
        assert chip.clock
        moving, peak = work.bytes * chip.devices / chip.hbm_rate, chip.bf16 / chip.devices
        if work.kernels:
            computing = attention.seconds(chip, step.attention) if step.attention else None
            if computing is None:
                computing = work.kernel_flops / (peak * chip.product)
            return KERNELS, max(computing, moving)
        told = work.cycles / chip.clock
        if work.flops:
            least = work.flops / peak
            # Products in int8 or fp8 may take less than the peak in bf16 has them take.
            computing = told if 0 < told < least else least + chip.shown * (told - least)
            return PRODUCTS, max(computing if told else least / chip.product, moving)
        return OTHER, moving or told

    def exchange(self, one: Exchange) -> float:
        """Seconds of an exchange, each time."""
        if not one.axes:
            return 0.0
        over = links(self.topology, self.sizes, one.axes)
        if one.between_slices:
            return one.sent / over.network
        if one.kind in ("all-to-all", "ragged-all-to-all"):
            return one.sent * one.devices / (one.devices - 1) / over.across
        return one.sent / (over.hop if one.kind == "collective-permute" else over.rate)

    def copy(self, one: Transfer) -> float:
        """Seconds of a copy; none where the link's rate is not known."""
        rate = self.chip.host.link if HOST in (one.source, one.target) else self.chip.hbm_rate
        return one.bytes * self.chip.devices / rate if rate else 0.0

    def ways(self, one: Exchange | Transfer) -> list[Hashable]:
        """What it takes for itself while it goes on: dimensions of the torus in a direction."""
        if isinstance(one, Transfer):
            return [(COPIES, one.source == HOST, one.target == HOST)]
        if one.between_slices:
            return ["network"]
        along = links(self.topology, self.sizes, one.axes).along
        both = (1, -1) if not one.ahead else (1,) if one.ahead > 0 else (-1,)
        return [(dimension, way) for dimension in along for way in both]


class _Run:
    """A device on its way through the steps of a program."""

    def __init__(self, clock: Clock) -> None:
        self.now = 0.0
        self.spent: defaultdict[str, float] = defaultdict(
            float
        )  # seconds, by kind of work or what is waited for
        self._clock = clock
        self._free: defaultdict[Hashable, float] = defaultdict(float)  # when a way will be
        self._going: dict[str, tuple[str, float]] = {}  # what for, and when it will be done

    def take(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Loop):
                self._loop(step)
            elif isinstance(step, Computed):
                self._spend(*self._clock.computing(step))
            elif isinstance(step, Begun):
                self._begin(step.key, step.what)
            elif step.key in self._going:
                name, done = self._going.pop(step.key)
                self._spend(name, max(0.0, done - self.now))

    def _spend(self, on: str, seconds: float) -> None:
        self.spent[on] += seconds
        self.now += seconds

    def _begin(self, key: str, what: Exchange | Transfer) -> None:
        if isinstance(what, Exchange):
            name, seconds = what.name, self._clock.exchange(what)
        else:
            name, seconds = COPIES, self._clock.copy(what)
        ways = self._clock.ways(what)
        done = max([self.now, *(self._free[way] for way in ways)]) + seconds
        self._free |= dict.fromkeys(ways, done)
        self._going[key] = name, done

    def _loop(self, loop: Loop) -> None:
        """Takes turns until one is like the last; the others then are, too."""
        last = -1.0
        for turn in range(loop.times):
            began, spent, free = self.now, dict(self.spent), dict(self._free)
            self.take(loop.steps)
            took = self.now - began
            if abs(took - last) <= _SAME * took or turn == _TURNS:
                rest = loop.times - turn - 1
                for on, until in self.spent.items():
                    self.spent[on] = until + rest * (until - spent.get(on, 0.0))
                self.now += rest * took
                for way, until in self._free.items():
                    if until != free.get(way):  # it is used in the loop
                        self._free[way] = until + rest * took
                return
            last = took
