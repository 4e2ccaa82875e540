"""All that is said of a run before its hardware is there, put together."""

import dataclasses
import functools
import math
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from ml_collections import ConfigDict, FieldReference

from checkpointing import teacher
from configs import door, layouts, start_from
from data.tokenizing.byte import ByteTokenizer
from planning import devices
from planning.analytic.estimate import Estimate, estimate
from planning.hardware import name_of
from planning.layout import abstract_mesh, check, mesh_over
from planning.prediction import Clock, Time
from planning.program import Program, build
from planning.remedies import Remedy, remedies
from planning.tensors import Tensor, state_tensors
from planning.topology import Topology
from reporting.progress import duration
from training.assembly import assemble, lowered
from training.config import RunConfig

_SAID_S = 10.0  # between two lines while the compiler is at work


@dataclasses.dataclass(frozen=True)
class Plan:
    """Attributes:
    config: of the run; its vocabulary is known.
    topology: the hardware.
    layout: the name of that which was applied to the config (configs/layouts.py), or "none".
    sizes: devices along each mesh axis.
    notes: what a person should know of the layout.
    tensors: what a device holds from step to step.
    estimate: of a step, from published rates alone.
    program: what the compiler says of the step; None where it was not asked.
    reason: why not.
    seconds: that it took.
    time: the prediction; None where there is nothing to make it of.
    """

    config: RunConfig
    topology: Topology
    layout: str
    sizes: dict[str, int]
    notes: tuple[str, ...]
    tensors: list[Tensor]
    estimate: Estimate
    program: Program | None
    reason: str
    seconds: float
    time: Time | None

    @property
    def memory(self) -> float:
        """Bytes of a device that a program may use; infinite where they are not known."""
        chip = self.topology.chip
        return chip.usable / chip.devices if chip else math.inf

    @property
    def needed(self) -> int:
        """Bytes of a device: by the compiler, or estimated."""
        if self.program is not None:
            return self.program.memory.needed or self.program.memory.total
        return self.estimate.peak

    @property
    def fits(self) -> bool:
        return self.needed <= self.memory and not (self.program and self.program.memory.over)

    @functools.cached_property
    def remedies(self) -> list[Remedy]:
        """What would make it fit, estimated; none where it does."""
        return [] if self.fits else remedies(self.config, self.topology, self.needed)

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.config.train.batch_size * self.config.data.sequence_length

    @property
    def mfu(self) -> float | None:
        """Model FLOPs over what the chips could do in the predicted time."""
        if self.time is None or self.topology.chip is None:
            return None
        flops = self.tokens * self.config.model.flops_per_token(self.config.data.sequence_length)
        return flops / self.topology.chips / self.topology.chip.bf16 / self.time.step

    def to_dict(self) -> dict[str, Any]:
        """All of it in plain values."""
        shallow = ("layout", "sizes", "notes", "reason", "seconds")
        plain = {name: getattr(self, name) for name in shallow}
        plain |= {"config": self.config.to_dict(), "time": None, "program": None}
        if self.time is not None:
            plain["time"] = _plain(self.time) | {
                "exposed": self.time.exposed,
                "step": self.time.step,
            }
        plain["topology"] = {"name": self.topology.name, "slices": self.topology.slices}
        plain["remedies"] = [
            one._asdict() | {"topology": one.topology.name, "slices": one.topology.slices}
            for one in self.remedies
        ]
        plain["tensors"] = [one._asdict() for one in self.tensors]
        plain["estimate"] = _plain(self.estimate) | {"timing": None}
        if timing := self.estimate.timing:
            plain["estimate"]["timing"] = {
                "rooflines": _plain(timing.rooflines),
                "phases": timing.phases,
                "step_s": timing.step_s,
                "mfu": timing.mfu,
            }
        if self.program is not None:
            plain["program"] = _plain(dataclasses.replace(self.program, steps=()))
        plain |= {"needed": self.needed, "fits": self.fits, "mfu": self.mfu, "tokens": self.tokens}
        return plain | {"memory": None if math.isinf(self.memory) else self.memory}


def _plain(value: Any) -> Any:
    """Named tuples and dataclasses as mappings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value


def read_config(
    config: ConfigDict, topology: Topology, given: Collection[str]
) -> tuple[RunConfig, str | None]:
    """The config of a run on some hardware; what only its data needs may be left open.

    Args:
      config: as a file in configs/ makes it, with all that the command line changed.
      topology: the hardware.
      given: the keys that the command line sets.

    Returns:
      the config, with a vocabulary; and the layout that was applied, for people, or None.

    Raises:
      UserError: a value that cannot be.
    """
    chosen, layout = layouts.applied(config, name_of(topology), given)
    if chosen.model.vocab_size and isinstance(
        chosen.train.get("start_from"), FieldReference | None
    ):
        chosen.train.start_from = ""  # the config has the model's shape, and a plan no numbers
    chosen, _ = start_from.applied(chosen, given)
    for key, value in chosen.data.items():
        if value is None or isinstance(value, FieldReference):
            chosen.data[key] = "not needed"
    run = door.read(chosen, devices.platform(topology))
    trained = run.data.tokenizer_vocab_size  # what is trained has at most so many ids
    ids = ByteTokenizer.vocab_size if run.data.tokenizer == "byte" else trained
    return door.with_vocabulary(run, ids), layout


def make_plan(
    config: RunConfig, topology: Topology, compiling: bool = True, layout: str = layouts.NONE
) -> Plan:
    """Plans a run.

    Args:
      config: see read_config.
      topology: the hardware.
      compiling: whether to ask the compiler, where there is one.
      layout: that was applied to the config.

    Raises:
      UserError: the layout cannot be.
    """
    notes = check(config, topology.devices)
    mesh = abstract_mesh(config, topology.devices)
    tensors, sizes = state_tensors(config, mesh), dict(mesh.shape)
    found, reason, took, predicted = None, "--nocompile", 0.0, None
    if compiling:
        here, reason = devices.devices_of(topology)
        if here:
            began = time.monotonic()
            with _told(f"compiling the step for {len(here)} devices"):
                on = mesh_over(config, here)
                made = assemble(config, on, teacher.in_step(config, on))
                found = build(lowered(config, made), made.mesh)
            took = time.monotonic() - began
    if found is not None and topology.chip is not None:
        predicted = Clock(topology, sizes).predicted(found)
    guess = estimate(config, topology)
    return Plan(
        config, topology, layout, sizes, notes, tensors, guess, found, reason, took, predicted
    )


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Says now and then that something goes on, and for how long it has."""
    began, done = time.monotonic(), threading.Event()

    def tell() -> None:
        while not done.wait(_SAID_S):
            print(f"{what}: {duration(time.monotonic() - began)}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
