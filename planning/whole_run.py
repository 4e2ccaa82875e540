"""The run from its first step to its last: tokens, days, cost, and what its checkpoints take."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from data.stages import Stage, stages_of
from planning.analytic import estimate, layout
from planning.topology import Topology
from training.config import RunConfig

WRITTEN = 0.93
"""Of a save's bytes on a host, what is held again, compressed, until all of it is on disk:
`python -m bench save`, bench/results/save_cpu.json, of float32 noise. Moments that are still zero
take less."""

StepSeconds = Callable[[RunConfig], float | None]
"""Given a run whose every step is alike, the seconds of one; None where they are not known."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Steps of one stage.

    Attributes:
      rows, length: of a step.
      steps: how many.
      tokens: of all.
      seconds: of all; None where the time of a step is not known.
    """

    rows: int
    length: int
    steps: int
    tokens: int
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class Saving:
    """A checkpoint.

    Attributes:
      bytes: parameters and optimizer state, as they are in memory; on disk they are compressed.
      most: on disk at once: those that are kept, and the one that is being written.
      saves: in the run.
      copy: bytes of it on the host that has most, off its devices: each device copies its shard
        once, or, of what several devices hold, its share. Training goes on when it is made.
      written: bytes of it on that host again, compressed, until they are on disk.
      ram: bytes of that host; 0 where they are not known.
    """

    bytes: int
    most: int
    saves: int
    copy: int
    written: int
    ram: float

    @property
    def host(self) -> int:
        """Bytes of host memory that a save needs, beside what the process has anyway."""
        return self.copy + self.written


@dataclasses.dataclass(frozen=True)
class WholeRun:
    """A run, with steps alone: no time for compiling, evaluation, saves that are waited for, or
    what is lost to failures.

    Attributes:
      parts: stages, in their order.
      steps, tokens: of all.
      seconds, days: of all; None where the time of a step is not known.
      chip_hours: chips x hours.
      cost: at the price of a chip's hour, in its currency; None without one.
      saving: a checkpoint.
    """

    parts: tuple[Part, ...]
    steps: int
    tokens: int
    seconds: float | None
    days: float | None
    chip_hours: float | None
    cost: float | None
    saving: Saving


def whole_run(
    run: RunConfig,
    topology: Topology,
    step_s: StepSeconds | None = None,
    price: float | None = None,
) -> WholeRun:
    """The whole of a run.

    Args:
      run: its model must have its vocabulary.
      topology: what it runs on.
      step_s: gives the time of a step; by default it is estimated (planning/analytic/).
      price: of a chip for an hour.

    Raises:
      UserError: see planning.analytic.layout.of.
    """
    if step_s is None:

        def step_s(run: RunConfig) -> float | None:
            timing = estimate.estimate(run, topology).timing
            return timing.step_s if timing else None

    stages = stages_of(run.data, run.train.batch_size)
    ends = [*(stage.after_step for stage in stages[1:]), run.train.steps]
    parts = []
    for stage, end in zip(stages, ends, strict=True):
        steps = max(min(end, run.train.steps) - stage.after_step, 0)
        if not steps:
            continue
        one = step_s(of_stage(run, stage))
        tokens = steps * stage.rows * stage.length
        seconds = None if one is None else steps * one
        parts.append(Part(stage.rows, stage.length, steps, tokens, seconds))
    times = [part.seconds for part in parts if part.seconds is not None]
    total = sum(times) if len(times) == len(parts) else None
    hours = None if total is None else topology.chips * total / 3600
    return WholeRun(
        parts=tuple(parts),
        steps=sum(part.steps for part in parts),
        tokens=sum(part.tokens for part in parts),
        seconds=total,
        days=None if total is None else total / 86400,
        chip_hours=hours,
        cost=None if price is None or hours is None else price * hours,
        saving=saving(run, topology),
    )


def of_stage(run: RunConfig, stage: Stage) -> RunConfig:
    """The run as if all its steps were of one stage."""
    data = dataclasses.replace(run.data, sequence_length=stage.length, stages={})
    train = dataclasses.replace(run.train, batch_size=stage.rows)
    return dataclasses.replace(run, data=data, train=train)


def saving(run: RunConfig, topology: Topology) -> Saving:
    """What checkpointing/checkpoints.py does with a state that lies as the run's does.

    Orbax copies to the host what a process will write, all of it before training goes on, and then
    writes in the background. Of shards that several devices hold each writes its part, if a
    dimension can be divided by their number, else the first alone.
    """
    state = layout.of(run, topology).state
    leaves = jax.tree.leaves((state.params, state.opt_state))
    devices = topology.devices // topology.hosts
    size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    copy = sum(_copied(leaf, devices, topology.devices) for leaf in leaves)
    steps, every = run.train.steps, run.checkpoint.every
    return Saving(
        bytes=size,
        most=(run.checkpoint.keep + 1) * size,
        saves=-(-steps // every),
        copy=copy,
        written=round(WRITTEN * copy),
        ram=topology.chip.host.ram if topology.chip else 0.0,
    )


def _copied(leaf: Any, on_host: int, devices: int) -> int:
    """Bytes of a leaf that the host with most of it copies."""
    shard = leaf.sharding.shard_shape(leaf.shape)
    size = math.prod(shard) * leaf.dtype.itemsize
    different = math.prod(leaf.shape) // max(math.prod(shard), 1)
    copies = devices // different
    if copies > 1 and any(n % copies == 0 for n in shard):
        return on_host * size // copies
    return min(on_host, different) * size
