"""The best layout for a run: all are estimated, the best few compiled, within a bounded time.

The estimate (planning/analytic.py) takes milliseconds and is rough; it only says in which order
layouts are worth a compilation. What is compiled is judged by the compiler's memory and by the
prediction of its program's time.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, get_args

from configs import door
from errors import UserError
from model import parameters
from model.config import Remat
from planning.analytic.estimate import Estimate, estimate
from planning.layout import abstract_mesh
from planning.remedies import Flags
from planning.topology import Topology
from sharding import schedule
from sharding.table import validate
from training.config import RunConfig

_COMMAND = Path(__file__).parent.parent / "plan.py"
_MOST_TENSOR = 16  # devices along `tensor`: past that, products are too thin for any chip here
_MOST_STAGES = 16
_ROUNDS = (1, 2, 4)
_LONG = 32_768  # tokens of a row from which `context` is tried
_ROOM = 1.1  # how much more than there is an estimate may be for a layout to be compiled


class Candidate(NamedTuple):
    """Attributes:
    flags: what sets it.
    estimate: without the compiler; None of the config as it stands, if that cannot be laid out.
    plan: what plan.py says, as Plan.to_dict; None where it was not compiled.
    """

    flags: Flags
    estimate: Estimate
    plan: dict[str, Any] | None = None

    @property
    def seconds(self) -> float | None:
        """Of a step, as predicted of the compiled program, if it fits."""
        if self.plan is None or not self.plan["fits"] or not self.plan["time"]:
            return None
        return float(self.plan["time"]["step"])


def search(
    config: RunConfig,
    topology: Topology,
    arguments: Sequence[str],
    limit_s: float,
    say: Callable[[str], None],
) -> list[Candidate]:
    """Compiles the config as it stands, and the layouts that are thought to be the fastest.

    Args:
      config: of the run.
      topology: the hardware; its chip must be known.
      arguments: of plan.py, for the run and the hardware.
      limit_s: seconds after which no more are compiled.
      say: where people read.

    Returns:
      the compiled ones, the config as it stands first, then those that were done in time.
    """
    began = time.monotonic()
    ranked = rank(config, topology)
    say(f"{len(ranked)} layouts can be; estimated in {time.monotonic() - began:.0f} s")
    own = flags_of(config, topology.devices)
    queue = [Candidate(own, estimate(config, topology))]
    queue += [one for one in _unlike_first(ranked) if one.flags != own]
    return _compiled(queue, arguments, began + limit_s, say)


def best(found: Sequence[Candidate]) -> Candidate | None:
    """The fastest that fits; None if none does."""
    fitting = [one for one in found if one.seconds is not None]
    return min(fitting, key=lambda one: one.seconds or 0.0, default=None)


def rank(config: RunConfig, topology: Topology) -> list[Candidate]:
    """All layouts that may fit, by the estimated time of a step."""
    found = []
    for one in candidates(config, topology.devices):
        try:
            guess = estimate(one, topology)
        except UserError:
            continue
        if guess.timing and (not guess.usable or guess.peak <= _ROOM * guess.usable):
            found.append(Candidate(flags_of(one, topology.devices), guess))
    return sorted(found, key=lambda c: c.estimate.timing.step_s if c.estimate.timing else 0.0)


def _unlike_first(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Of layouts that differ in nothing but `data` and `fsdp` the best, then all others: the first
    of a ranking are often nearly the same.
    """
    kinds: set[str] = set()
    first: list[Candidate] = []
    others: list[Candidate] = []
    for one in ranked:
        kind = json.dumps(one.flags | {"mesh.data": 0, "mesh.fsdp": 0})
        (others if kind in kinds else first).append(one)
        kinds.add(kind)
    return first + others


def candidates(config: RunConfig, devices: int) -> Iterator[RunConfig]:
    """Every layout over so many devices that the model, the batches and the lengths admit."""
    outline = parameters.outline(config.model)
    axes, shapes = parameters.logical_axes(outline), parameters.shapes(outline)
    batches, lengths = door.batch_sizes(config), door.sequence_lengths(config)
    for sizes in _meshes(config, devices):
        mesh = dataclasses.replace(config.mesh, **sizes)
        ways = sizes["data"] * sizes["fsdp"] * sizes["expert"]
        for accumulation in _divisors(min(batches.values()) // ways):
            rows = {name: size // accumulation for name, size in batches.items()}
            if any(size % (accumulation * ways) for size in batches.values()):
                continue
            least = ways * sizes["pipeline"]
            at_a_time = -(-config.evaluation.batch_size // least) * least
            one = dataclasses.replace(
                config,
                mesh=mesh,
                train=dataclasses.replace(config.train, accumulation=accumulation),
                evaluation=dataclasses.replace(config.evaluation, batch_size=at_a_time),
            )
            try:
                on, layers = abstract_mesh(one, devices), config.model.stacks
                evaluated = {"evaluation.batch_size": at_a_time}
                others = sum(layers[:-1])
                schedule.check(on, one.mesh, sum(layers), rows | evaluated, others)
                validate(on, axes, shapes, rows, lengths)
            except ValueError:
                continue
            for remat in get_args(Remat):
                if remat == "none" and (config.model.remat_save or config.model.remat_offload):
                    continue
                model = dataclasses.replace(config.model, remat=remat)
                yield dataclasses.replace(one, model=model)


def _meshes(config: RunConfig, devices: int) -> Iterator[dict[str, Any]]:
    model = config.model
    long = max(door.sequence_lengths(config).values()) >= _LONG
    tensors = [n for n in _divisors(devices) if n <= _MOST_TENSOR and model.num_heads % n == 0]
    contexts = _divisors(devices) if long else [1]
    many = model.moe.num_experts
    experts = [n for n in _divisors(devices) if n == 1 or (many and many % n == 0)]
    stages = [n for n in _divisors(devices) if n <= _MOST_STAGES and model.num_layers % n == 0]
    in_rounds = [(1, 1), *((n, r) for n in stages[1:] for r in _ROUNDS)]
    for tensor, context, expert, (pipeline, rounds) in itertools.product(
        tensors, contexts, experts, in_rounds
    ):
        inside = tensor * context * expert * pipeline
        for fsdp in _divisors(devices // inside) if devices % inside == 0 else ():
            yield {
                "data": devices // inside // fsdp,
                "fsdp": fsdp,
                "tensor": tensor,
                "context": context,
                "expert": expert,
                "pipeline": pipeline,
                "rounds": rounds,
                "microbatches": 0,
            }


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def flags_of(config: RunConfig, devices: int) -> Flags:
    """What `candidates` sets, as a config has it."""
    mesh = {f"mesh.{axis}": size for axis, size in config.mesh.sizes(devices).items()}
    return mesh | {
        "mesh.rounds": config.mesh.rounds,
        "mesh.microbatches": config.mesh.microbatches,
        "train.accumulation": config.train.accumulation,
        "evaluation.batch_size": config.evaluation.batch_size,
        "model.remat": config.model.remat,
    }


def _compiled(
    queue: list[Candidate], arguments: Sequence[str], until: float, say: Callable[[str], None]
) -> list[Candidate]:
    """Those of the queue that were compiled in time, as many at once as there are processors."""
    done: list[Candidate] = []
    running: list[_Running] = []
    waiting = iter(queue)
    try:
        while time.monotonic() < until:
            while len(running) < (os.cpu_count() or 1):
                if (one := next(waiting, None)) is None:
                    break
                running.append(_start(one, arguments))
            if not running:
                break
            for ended in [some for some in running if some.process.poll() is not None]:
                running.remove(ended)
                found = ended.candidate._replace(plan=_read(ended.output))
                done.append(found)
                say(f"{len(done)} compiled: {described(found)}")
            time.sleep(0.2)
    finally:
        for some in running:
            some.process.kill()
            some.process.wait()
            some.output.close()
    return sorted(done, key=lambda one: one.flags != queue[0].flags)


class _Running(NamedTuple):
    """A process, and the file that it writes to."""

    candidate: Candidate
    process: subprocess.Popen[str]
    output: IO[str]


def _start(one: Candidate, arguments: Sequence[str]) -> _Running:
    flags = [f"--config.{key}={value}" for key, value in one.flags.items()]
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (it is closed when it has been read)
    process = subprocess.Popen(
        [sys.executable, str(_COMMAND), *arguments, *flags, "--json"],
        stdout=output,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return _Running(one, process, output)


def _read(output: IO[str]) -> dict[str, Any] | None:
    """What a process that has ended says of its layout; None if it failed."""
    with output:
        output.seek(0)
        try:
            found: dict[str, Any] = json.load(output)
        except ValueError:
            return None
    return found


def described(one: Candidate) -> str:
    """A candidate in a line."""
    if one.plan is None:
        said = "does not compile"
    elif not one.plan["fits"]:
        said = f"needs {one.plan['needed'] / 1e9:.1f} GB: does not fit"
    elif one.seconds is None:
        said = f"needs {one.plan['needed'] / 1e9:.1f} GB"
    else:
        said = f"needs {one.plan['needed'] / 1e9:.1f} GB, predicted {one.seconds * 1e3:,.0f} ms"
    split = " x ".join(
        f"{key.partition('.')[2]}={size}"
        for key, size in one.flags.items()
        if key.startswith("mesh.") and size not in (0, 1)
    )
    return (
        f"{split or 'one device'}, accumulation {one.flags['train.accumulation']}, "
        f"remat {one.flags['model.remat']}: {said}"
    )
