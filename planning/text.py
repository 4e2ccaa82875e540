"""A plan, as tables for people."""

import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator

from planning.exchanges import Exchange
from planning.plan import Plan
from planning.prediction import Clock
from planning.tensors import total
from planning.whole_run import StepSeconds, whole_run
from reporting.progress import duration
from training.config import RunConfig

_LARGEST = 8  # buffers that are told


def told(plan: Plan, price: float = 0.0) -> Iterator[str]:
    """The lines of a plan.

    Args:
      plan: the plan.
      price: of an hour of a chip; 0 is unknown.
    """
    yield from _head(plan)
    yield from _tensors(plan)
    yield from _memory(plan)
    yield from _rooflines(plan)
    if plan.program is None:
        yield f"\nnot compiled: {plan.reason}"
    else:
        yield from _exchanges(plan)
        yield from _time(plan)
    yield from _whole_run(plan, price)


def table(rows: Iterable[tuple[str, ...]], right: str = "") -> Iterator[str]:
    """Rows in columns, the first of them a heading.

    Args:
      rows: of equally many cells.
      right: the numbers of columns of numbers, as "34".
    """
    listed = list(rows)
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)]
    for row in listed:
        cells = (
            cell.rjust(width) if str(i) in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield ("  " + "  ".join(cells)).rstrip()


def _head(plan: Plan) -> Iterator[str]:
    config, topology = plan.config, plan.topology
    split = " x ".join(f"{axis}={size}" for axis, size in plan.sizes.items() if size > 1)
    slices = f"{topology.slices} slices of " if topology.slices > 1 else ""
    yield (
        f"{config.model.num_params():,} parameters on {slices}{topology.name}, "
        f"{topology.devices:,} devices: {split or 'one device'}; a step of "
        f"{config.train.batch_size:,} x {config.data.sequence_length:,} tokens in "
        f"{config.train.accumulation} microbatches; remat {config.model.remat}"
    )
    if not config.tuning.everything:
        moving, fixed = (total(plan.tensors, kind) for kind in ("parameters", "fixed"))
        yield (
            f"tuning: {config.tuning.method}; on each device {moving / 1e6:,.1f} MB of parameters "
            f"move, and {fixed / 1e6:,.1f} MB stay"
        )
    for note in plan.notes:
        yield f"note: {note}"


def _tensors(plan: Plan) -> Iterator[str]:
    yield from _table_of(plan, "parameters", "parameters")
    yield from _table_of(plan, "fixed", "parameters that stay as they are")


def _table_of(plan: Plan, kind: str, heading: str) -> Iterator[str]:
    if not (tensors := [tensor for tensor in plan.tensors if tensor.kind == kind]):
        return
    yield f"\n{heading}"
    rows = [("tensor", "shape", "split by", "MB a device")]
    for one in tensors:
        dims = ", ".join(f"{a} {n}" for a, n in zip(one.axes, one.shape, strict=True))
        split = ", ".join(
            f"{a} by {' x '.join(by)}" for a, by in zip(one.axes, one.mesh_axes, strict=True) if by
        )
        rows.append((one.name, dims, split or "nothing", f"{one.bytes / 1e6:,.1f}"))
    yield from table(rows, "3")


def _memory(plan: Plan) -> Iterator[str]:
    yield "\nmemory of a device"
    kept = {kind: total(plan.tensors, kind) for kind in ("parameters", "optimizer", "fixed")}
    names = {"fixed": "parameters that stay"}
    rows = [(names.get(kind, kind), size) for kind, size in kept.items() if size]
    if plan.program is None:
        rows = [
            (one.name, one.bytes)
            for one in plan.estimate.held
            if plan.estimate.moment in one.moments
        ]
        rows.append((f"all in all, estimated ({plan.estimate.moment})", plan.needed))
    else:
        memory = plan.program.memory
        rows += [
            ("batch and other arguments", max(0, memory.arguments - sum(kept.values()))),
            ("outputs that take no argument's place", memory.outputs),
            ("temporaries: gradients, activations, logits", memory.temporaries),
            ("the program", memory.code),
            ("all in all", plan.needed),
        ]
        if memory.host:
            rows.append(("in the host's memory", memory.host))
    yield from table([("of", "GB"), *((name, f"{n / 1e9:,.2f}") for name, n in rows)], "1")
    if plan.topology.chip is not None:
        yield _room(plan)
        yield from _mended(plan)
    if plan.program is not None and plan.program.live:
        yield f"\nlargest buffers when most is in use ({_LARGEST} of {len(plan.program.live)})"
        rows_of = [("GB", "shape", "kind", "from")]
        rows_of += [
            (f"{one.bytes / 1e9:.3f}", str(one.shape), one.kind, f"{one.source} {one.name}")
            for one in plan.program.live[:_LARGEST]
        ]
        yield from table(rows_of, "0")


def _room(plan: Plan) -> str:
    left, of = plan.memory - plan.needed, plan.memory
    if plan.fits:
        return f"  it fits: {left / 1e9:,.2f} GB of {of / 1e9:,.2f} GB are left"
    return f"  IT DOES NOT FIT: {-left / 1e9:,.2f} GB more than the {of / 1e9:,.2f} GB of a device"


def _mended(plan: Plan) -> Iterator[str]:
    """What would make it fit."""
    if plan.fits:
        return
    if not plan.remedies:
        yield "  no change of layout mends it: make model or batch smaller, or take other chips"
        return
    yield "\nwhat would mend it (estimated: plan it with these flags)"
    rows = [("GB", "ms a step", "flags")]
    for one in plan.remedies:
        flags = [flag(f"config.{key}", value) for key, value in one.flags.items()]
        if one.topology != plan.topology:
            # Its own layout would change what was estimated.
            flags.insert(0, flag("config.layout", plan.layout))
            flags.insert(0, flag("slices", one.topology.slices))
            flags.insert(0, flag("topology", one.topology.name))
        rows.append((f"{one.bytes / 1e9:,.2f}", f"{one.step_s * 1e3:,.0f}", " ".join(flags)))
    yield from table(rows, "01")


def flag(name: str, value: object) -> str:
    """A flag as a shell reads it; our values have no double quotes."""
    said = f"--{name}={value}"
    return said if shlex.quote(said) == said else f'"{said}"'


def _exchanges(plan: Plan) -> Iterator[str]:
    assert plan.program is not None
    groups: dict[tuple[str, str], list[Exchange]] = defaultdict(list)
    for one in plan.program.exchanges:
        groups[one.kind, " x ".join(one.axes) or "none"].append(one)
    if not groups:
        return
    yield "\nexchanges of a step, on a device"
    clock = Clock(plan.topology, plan.sizes) if plan.topology.chip else None
    rows = [("kind", "along", "times", "GB sent", "ms", "waited for, ms")]
    for (kind, axes), some in sorted(groups.items()):
        sent = sum(one.times * one.sent for one in some)
        took = waited = ""
        if clock is not None:
            took = f"{sum(one.times * clock.exchange(one) for one in some) * 1e3:,.1f}"
        if plan.time is not None:
            waited = f"{sum(plan.time.waited.get(one.name, 0.0) for one in some) * 1e3:,.1f}"
        calls = sum(one.times for one in some)
        rows.append((kind, axes, f"{calls:,}", f"{sent / 1e9:.3f}", took, waited))
    yield from table(rows, "2345")


def _rooflines(plan: Plan) -> Iterator[str]:
    timing = plan.estimate.timing
    if timing is None:
        return
    yield "\nleast time of a step, by what may bound it (from the config and published rates alone)"
    lines = timing.rooflines
    parts = [
        (f"matrix units: {plan.estimate.flops / 1e12:,.1f} TFLOP", lines.matrix),
        ("memory", lines.hbm),
        ("links", lines.links),
        ("the hosts' memory", lines.host),
        ("estimated, what overlaps and what does not", timing.step_s),
    ]
    yield from table([("of", "ms"), *((name, f"{t * 1e3:,.1f}") for name, t in parts if t)], "1")


def _time(plan: Plan) -> Iterator[str]:
    found, mfu = plan.time, plan.mfu
    if found is None or mfu is None:
        yield f"\nno prediction of time: XLA gives no cycles for {plan.topology.name}"
        return
    yield "\npredicted time of a step (not measured: see docs/planning.md)"
    parts = [
        ("products of matrices, as fused", found.products),
        ("other fusions and copies", found.other),
        ("kernels", found.kernels),
        ("exchanges that are waited for", found.exposed),
        ("copies that are waited for, to hosts and VMEM", found.copies),
        ("all in all", found.step),
    ]
    yield from table([("of", "ms"), *((name, f"{t * 1e3:,.1f}") for name, t in parts if t)], "1")
    rate = plan.tokens / found.step / plan.topology.chips
    yield f"  {rate:,.0f} tokens/s a chip, MFU {mfu:.1%}"


def _whole_run(plan: Plan, price: float) -> Iterator[str]:
    step_s = plan.time.step if plan.time else None
    run = whole_run(plan.config, plan.topology, _steps_like(plan), price or None)
    yield f"\nthe whole run: {run.steps:,} steps, {run.tokens / 1e9:,.1f} billion tokens"
    if step_s is not None and run.seconds is not None and run.chip_hours is not None:
        cost = f", {run.cost:,.0f} at {price:g} an hour" if run.cost is not None else ""
        yield f"  {duration(run.seconds)} and {run.chip_hours:,.0f} chip-hours{cost}"
    saving = run.saving
    of = f" of {saving.ram / 1e9:,.0f} GB" if saving.ram else ""
    yield (
        f"  a checkpoint: {saving.bytes / 1e9:,.1f} GB, {saving.saves:,} in all, at most "
        f"{saving.most / 1e9:,.1f} GB on disk; while it is written a host holds "
        f"{saving.host / 1e9:,.1f} GB{of}"
    )


def _steps_like(plan: Plan) -> StepSeconds:
    """The time of steps of every stage: that of the plan, by the tokens of a step."""

    def seconds(run: RunConfig) -> float | None:
        if plan.time is None:
            return None
        tokens = run.train.batch_size * run.data.sequence_length
        return plan.time.step * tokens / plan.tokens

    return seconds
