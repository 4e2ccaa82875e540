"""What to change where a step does not fit, by estimates: the fewest changes, then the fastest.

Every change leaves what is trained as it is. A layout that was compiled may need more than was
estimated of it; what it needed more is added to the estimates of all others.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from errors import UserError
from planning.analytic.estimate import estimate
from planning.layout import check
from planning.topology import Topology, larger
from training.config import RunConfig

_CHANGES = 3  # at most, at a time
_TOLD = 3
_DOUBLED = 5  # times that chips are doubled
_RESERVE = 0.04  # of a device's memory, that a remedy leaves free: estimates are not the compiler
_REMAT = ("none", "save_dots", "save_attention", "full")  # from the fastest to the smallest
_LEAST_LOGITS_MB = 64

Flags = dict[str, Any]
"""Dotted keys of a config, and their values."""


class Remedy(NamedTuple):
    """Attributes:
    flags: keys of the config, and what to set them to.
    topology: the hardware: another, if it has to have more chips.
    bytes: that a device then needs, estimated.
    step_s: seconds of a step then, estimated.
    """

    flags: Flags
    topology: Topology
    bytes: int
    step_s: float


def remedies(config: RunConfig, topology: Topology, needed: int) -> list[Remedy]:
    """The best of all sets of as few changes as are enough, and how many more chips are.

    Args:
      config: of a run that does not fit.
      topology: the hardware; its chip must be known.
      needed: bytes of a device, by the compiler, or estimated.

    Returns:
      the fastest first, then the one with more chips; none of a kind that there is none of.
    """
    more = max(0, needed - estimate(config, topology).peak)
    changes = list(_changes(config, topology.devices))
    best: list[Remedy] = []
    for number in range(1, _CHANGES + 1):
        found: list[Remedy] = []
        for some in itertools.combinations(changes, number):
            flags = {key: value for one in some for key, value in one.items()}
            if len(flags) == sum(map(len, some)):  # no two values of one key
                found += _enough(config, flags, topology, more)
        found.sort(key=lambda one: one.step_s)
        best = list(itertools.islice((one for one in found if _can_be(config, one)), _TOLD))
        if best:
            break
    return [*best, *itertools.islice(_on_more(config, topology, more), 1)]


def _enough(config: RunConfig, flags: Flags, topology: Topology, more: int) -> Iterator[Remedy]:
    """The remedy that these flags are on this hardware, if they are one."""
    chip = topology.chip
    assert chip is not None
    try:
        guess = estimate(_with(config, flags), topology)
    except (UserError, ValueError):
        return
    if guess.timing and guess.peak + more <= (1 - _RESERVE) * chip.usable / chip.devices:
        yield Remedy(flags, topology, guess.peak + more, guess.timing.step_s)


def _on_more(config: RunConfig, topology: Topology, more: int) -> Iterator[Remedy]:
    """With twice as many chips, four times, and so on, that share all that `fsdp` splits; of slices
    that are the largest there are, as many more.
    """
    sizes = config.mesh.sizes(topology.devices)
    for doubled in (2**n for n in range(1, _DOUBLED + 1)):
        on = larger(topology, doubled)
        fsdp = sizes["fsdp"] * on.devices // topology.devices
        flags: Flags = {"mesh.fsdp": fsdp}
        ways = sizes["data"] * fsdp * sizes["expert"] * sizes["pipeline"]
        if over := config.evaluation.batch_size % ways:
            flags["evaluation.batch_size"] = config.evaluation.batch_size + ways - over
        yield from (one for one in _enough(config, flags, on, more) if _can_be(config, one))


def _changes(config: RunConfig, devices: int) -> Iterator[Flags]:
    """Each by itself; none that the config has already."""
    model, sizes = config.model, config.mesh.sizes(devices)
    for remat in _REMAT[_REMAT.index(model.remat) + 1 :]:
        yield {"model.remat": remat}
    times = 2 * config.train.accumulation
    while times <= config.train.batch_size:
        yield {"train.accumulation": times}
        times *= 2
    if sizes["data"] > 1:
        yield {"mesh.data": 1, "mesh.fsdp": sizes["data"] * sizes["fsdp"]}
    for tensor in (2, 4, 8):
        if sizes["fsdp"] % tensor == 0:
            fsdp, ways = sizes["fsdp"] // tensor, sizes["tensor"] * tensor
            yield {"mesh.fsdp": fsdp, "mesh.tensor": ways}
    if model.logits_mb > _LEAST_LOGITS_MB:
        yield {"model.logits_mb": _LEAST_LOGITS_MB}
    if not config.optimizer.offload:
        yield {"optimizer.offload": True}
    if "block" not in model.remat_offload and model.remat != "none":
        yield {"model.remat_offload": (*model.remat_offload, "block")}


def _with(config: RunConfig, flags: Flags) -> RunConfig:
    for key, value in flags.items():
        section, _, name = key.partition(".")
        changed = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: changed})
    return config


def _can_be(config: RunConfig, remedy: Remedy) -> bool:
    try:
        check(_with(config, remedy.flags), remedy.topology.devices)
    except UserError:
        return False
    return True
