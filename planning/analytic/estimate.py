"""A step's memory, work, exchanges and time from the config and published rates alone.

No compiler is asked, so an estimate takes milliseconds: enough to choose which of many layouts are
worth compiling, and what there is where libtpu is not. It is a prediction; `ASSUMPTIONS` says what
it takes for granted.
"""

import dataclasses
from collections.abc import Iterable

from planning.analytic import exchanges, hosts, layout, memory, work
from planning.analytic.exchanges import Axes, Exchange
from planning.analytic.hosts import Transfer
from planning.analytic.layout import Layout
from planning.analytic.memory import Held
from planning.analytic.work import Work
from planning.topology import Topology
from planning.torus import Links
from training.config import RunConfig

ASSUMPTIONS = (
    "products run at the share of the peak that large ones get (Chip.product), sizes that do not "
    "fill the matrix units at what they fill; each takes its FLOPs' time or its bytes', whichever "
    "is longer",
    "nothing of softmax, norms and activation functions but their bytes takes time; no latencies, "
    "no time of the host",
    "exchanges of weights and gradients run beside all work of their pass, each mesh axis on its "
    "own links; what takes longer than the work is waited for",
    "exchanges of activations run beside the products of their half of a block, in as many parts "
    "as devices; the first part is waited for",
    "experts are equally busy; rows that travel to them and back are waited for",
    "what stages hand on goes beside the work of their pass",
    "the output projection's table and its gradient are waited for, and so are the embedding's",
    "what of a block waits in the host's memory goes there and back beside all work of its pass; "
    "the optimizer's state is waited for; where Host.link is not known, neither takes time",
)


@dataclasses.dataclass(frozen=True)
class Rooflines:
    """The least time of a step by each of what bounds it, seconds; at published peaks.

    Attributes:
      matrix: all FLOPs, recomputation included, at the peak of the matrix units.
      hbm: all bytes at the memory's rate.
      links: exchanges along the axes that take longest, at the rate of their links.
      host: what goes to the host's memory or comes back, whichever is more.
    """

    matrix: float
    hbm: float
    links: float
    host: float


@dataclasses.dataclass(frozen=True)
class Timing:
    """What follows where the chip's rates are known.

    Attributes:
      links: of each set of mesh axes that is exchanged along.
      rooflines: see there.
      phases: seconds of each phase of a step, what is waited for included.
      waited: of them, seconds in which no work is done.
      step_s: predicted.
      tokens_per_s_chip: tokens of a step, by time and chips.
      mfu: the model's FLOPs over what the chips could do at their peak in bf16.
    """

    links: dict[Axes, Links]
    rooflines: Rooflines
    phases: dict[str, float]
    waited: float
    step_s: float
    tokens_per_s_chip: float
    mfu: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A step on one device.

    Attributes:
      sizes: devices along each mesh axis.
      held: what it holds, line by line.
      moment, peak: when that is most, and how many bytes.
      usable: bytes that it may hold; 0 where that is not known.
      work: what it computes, line by line.
      exchanges: what it exchanges, line by line.
      transfers: what goes to the host's memory and back, line by line.
      model_flops: that the model asks for.
      flops: of all products, recomputation included.
      timing: None of simulated devices.
    """

    sizes: dict[str, int]
    held: tuple[Held, ...]
    moment: str
    peak: int
    usable: float
    work: tuple[Work, ...]
    exchanges: tuple[Exchange, ...]
    transfers: tuple[Transfer, ...]
    model_flops: float
    flops: float
    timing: Timing | None

    @property
    def fits(self) -> bool:
        """Whether it is thought to fit; True where no limit is known."""
        return not self.usable or self.peak <= self.usable


def estimate(run: RunConfig, topology: Topology) -> Estimate:
    """Estimates a step of a run.

    Raises:
      UserError: see planning.analytic.layout.of.
    """
    laid = layout.of(run, topology)
    held, works = memory.held(laid), work.work(laid)
    exchanged, transferred = exchanges.exchanges(laid), hosts.transfers(laid)
    moment, peak = memory.peak(held)
    chip = topology.chip
    return Estimate(
        sizes=dict(laid.sizes),
        held=held,
        moment=moment,
        peak=peak,
        usable=chip.usable / chip.devices if chip else 0.0,
        work=works,
        exchanges=exchanged,
        transfers=transferred,
        model_flops=work.model_flops(laid),
        flops=sum(line.flops for line in works),
        timing=_timing(laid, works, exchanged, transferred) if chip else None,
    )


def _timing(
    laid: Layout,
    works: tuple[Work, ...],
    exchanged: tuple[Exchange, ...],
    transferred: tuple[Transfer, ...],
) -> Timing:
    chip, topology = laid.topology.chip, laid.topology
    assert chip is not None
    over = exchanges.links_of(laid, exchanged)
    phases, waited = {}, 0.0
    for phase in (work.FORWARD, work.BACKWARD, work.HEAD, work.UPDATE):
        # What is computed again is part of the backward pass.
        also = (phase, work.AGAIN) if phase == work.BACKWARD else (phase,)
        computing, total = _phase(
            laid,
            [line for line in works if line.phase in also],
            [line for line in exchanged if line.phase in also],
            [line for line in transferred if line.phase in also],
            over,
        )
        phases[phase] = total
        waited += total - computing
    step = sum(phases.values())
    peak, rate = chip.bf16 / chip.devices, chip.hbm_rate / chip.devices
    flops = work.model_flops(laid)
    return Timing(
        links=over,
        rooflines=Rooflines(
            matrix=sum(line.flops / _peak(laid, line) for line in works),
            hbm=sum(line.bytes for line in works) / rate,
            links=max((_time(exchanged, axes, over) for axes in over), default=0.0),
            host=_to_host(laid, transferred) / 2,  # as much goes there as comes back
        ),
        phases=phases,
        waited=waited,
        step_s=step,
        tokens_per_s_chip=laid.tokens / step / topology.chips,
        mfu=flops / step / peak,
    )


def _phase(
    laid: Layout,
    works: list[Work],
    exchanged: list[Exchange],
    transferred: list[Transfer],
    over: dict[Axes, Links],
) -> tuple[float, float]:
    """Seconds of computing in a phase, and of the phase."""
    beside = [line for line in exchanged if not line.half]
    host = _to_host(laid, transferred)
    computing = total = 0.0
    for half in (work.ATTENTION, work.MLP, work.EXPERTS, ""):
        own = sum(seconds(laid, line) for line in works if line.half == half)
        computing += own
        total += own
        of_half = [line for line in exchanged if half and line.half == half]
        for axes in {line.axes for line in of_half}:
            time = _time(of_half, axes, over)
            # In parts that follow each other: the longer, and one part of the other.
            total += max(time - own, 0) + min(time, own) / over[axes].size
    if works and works[0].phase in (work.HEAD, work.UPDATE):
        return computing, total + host + sum(line.seconds(over[line.axes]) for line in beside)
    return computing, max([total, host, *(_time(beside, axes, over) for axes in over)])


def _to_host(laid: Layout, lines: Iterable[Transfer]) -> float:
    """Seconds of transfers to the host or back, one after the other; 0 at a rate not known."""
    chip = laid.topology.chip
    assert chip is not None
    rate = chip.host.link / chip.devices
    return sum(line.bytes for line in lines) / rate if rate else 0.0


def _time(lines: Iterable[Exchange], axes: Axes, over: dict[Axes, Links]) -> float:
    """Seconds of all exchanges along these axes."""
    return sum(line.seconds(over[axes]) for line in lines if line.axes == axes)


def _peak(laid: Layout, line: Work) -> float:
    """FLOP/s of a device for this work: only products with weights are quantized."""
    chip = laid.topology.chip
    assert chip is not None
    quantized = laid.run.model.quantization if line.half else "none"
    return chip.peak(quantized) / chip.devices


def seconds(laid: Layout, line: Work) -> float:
    """Time of some work by itself."""
    chip = laid.topology.chip
    assert chip is not None
    computing = line.padded / (_peak(laid, line) * chip.product)
    return max(computing, line.bytes * chip.devices / chip.hbm_rate)
