"""--topology: which chips, in which arrangement."""

import dataclasses
import difflib
import math
import re
from typing import Any

from errors import UserError
from planning.chip import Chip, Torus
from planning.chips import CHIPS

CPU = "cpu"
"""Simulated devices, which have no rates: what they hold is told, not how fast they are."""

FORMS = "give a chip and its arrangement: v5e:16x16, v5p:4x4x8, h100:64, cpu:8"

_CLOUD = re.compile(r"(v5litepod|[a-z0-9]+?)-(\d+)")
_IN_CLOUD = {"v5litepod": "v5e"}
_CORES = ("v4", "v5p", "tpu7x")  # Cloud's names of slices of these count cores, two a chip


@dataclasses.dataclass(frozen=True)
class Topology:
    """The hardware of a run.

    Attributes:
      chip: None of simulated CPU devices.
      shape: chips of a slice in each dimension of its torus; of GPUs, those of a host.
      slices: equal ones, joined by the network; of GPUs, hosts.
    """

    chip: Chip | None
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """As --topology has it, of one slice; of GPUs, of all."""
        if self.chip is None or not isinstance(self.chip.links, Torus):
            return f"{CPU if self.chip is None else self.chip.name}:{self.chips}"
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        return self.slices * math.prod(self.shape)

    @property
    def devices(self) -> int:
        """What JAX calls devices: chips, or their cores (Chip.devices)."""
        return self.chips * (self.chip.devices if self.chip else 1)

    @property
    def hosts(self) -> int:
        """Processes of a run."""
        if self.chip is None:
            return 1
        return self.slices * -(-math.prod(self.shape) // self.chip.host.chips)

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Which dimensions of a slice are rings."""
        if self.chip is None or not isinstance(self.chip.links, Torus):
            return (False,) * len(self.shape)
        return self.chip.links.wraps(self.shape)

    def libtpu(self) -> dict[str, Any]:
        """What jax.experimental.topologies.get_topology_desc takes to describe TPUs."""
        assert self.chip and isinstance(self.chip.links, Torus), self.name
        options: dict[str, Any] = {"platform": "tpu", "topology_name": self.name}
        if self.slices > 1:
            options["num_slices"] = self.slices
        if self.chip.cores > self.chip.devices:
            options["chip_config_name"] = "megacore"  # a chip's cores are one device
        # Of itself libtpu takes no dimension for a ring, and exchanges in other ways then: on 128
        # v5p it makes all-reduces of all-gathers.
        options["wrap"] = (*self.wraps, False, False)[:3]
        return options


def parse(text: str, slices: int = 1) -> Topology:
    """Reads --topology and --slices.

    Args:
      text: "v5e:16x16", "v5p:4x4x8", "h100:64", "cpu:8".
      slices: of TPUs.

    Raises:
      UserError: there is no such chip or arrangement; names what was meant.
    """
    name, _, arrangement = text.strip().lower().partition(":")
    if slices < 1:
        raise UserError(f"--slices={slices}: must be at least 1")
    if name != CPU and name not in CHIPS:
        raise UserError(f"--topology={text}: {_meant(name)}")
    if not re.fullmatch(r"\d+(x\d+)*", arrangement):
        raise UserError(f"--topology={text}: {FORMS}")
    shape = tuple(int(n) for n in arrangement.split("x"))
    chip = CHIPS.get(name)
    try:
        if min(shape) < 1:
            raise ValueError(FORMS)
        if chip is not None and isinstance(chip.links, Torus):
            _check_torus(chip, chip.links, shape)
            return Topology(chip, shape, slices)
        return _on_hosts(chip, name, shape, slices)
    except ValueError as error:
        raise UserError(f"--topology={text}: {error}") from None


def _on_hosts(chip: Chip | None, name: str, shape: tuple[int, ...], slices: int) -> Topology:
    if len(shape) != 1:
        raise ValueError(f"{name} has no torus: give the number of devices, {name}:8")
    if chip is None:
        if slices > 1:
            raise ValueError(f"--slices={slices}: simulated devices are one slice")
        return Topology(None, shape)
    if shape[0] > chip.host.chips and shape[0] % chip.host.chips:
        raise ValueError(f"hosts have {chip.host.chips} {name} each: give a multiple of that")
    inside = min(shape[0], chip.host.chips)
    return Topology(chip, (inside,), slices * (shape[0] // inside))


def _check_torus(chip: Chip, links: Torus, shape: tuple[int, ...]) -> None:
    like = "4x8" if links.dimensions == 2 else "4x4x8"
    if len(shape) != links.dimensions:
        raise ValueError(
            f"{chip.name} is a torus of {links.dimensions} dimensions: {chip.name}:{like}"
        )
    if math.prod(shape) > 1 and (shape[0] % 2 or shape[1] % 2) and shape[:2] != (1, 2):
        raise ValueError("a host has 2 x 2 chips: the first two dimensions must be even")
    limit = "x".join(["16"] * 2) if links.dimensions == 2 else f"{links.largest:,} chips"
    if math.prod(shape) > links.largest or (not links.cubes and max(shape) > links.wraps_at):
        raise ValueError(f"a slice of {chip.name} has at most {limit}: add --slices")


def _meant(name: str) -> str:
    """What to write instead of a name that is no chip's."""
    if found := _CLOUD.fullmatch(name):
        chip, count = _IN_CLOUD.get(found[1], found[1]), int(found[2])
        if chip in CHIPS:
            chips = count // 2 if chip in _CORES else count
            counted = f"{count} cores, so {chips} chips" if chip in _CORES else f"{chips} chips"
            meant = f"{chip}:{arrangement(chip, chips)}"
            return f"that is Cloud's name for {counted}: did you mean {meant}?"
    near = difflib.get_close_matches(name, [*CHIPS, CPU], n=1, cutoff=0.5)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join([*CHIPS, CPU])}"
    return f"no chip {name or 'is named'}; {known}"


def arrangement(chip: str, chips: int) -> str:
    """The most compact arrangement of so many chips whose sizes are powers of two."""
    links = CHIPS[chip].links
    if not isinstance(links, Torus):
        return str(chips)
    shape = [1] * links.dimensions
    if links.dimensions == 3 and chips < 64:  # part of a cube: 2x2x1, 2x2x2, 2x2x4, 2x4x4
        order = (1, 0, 2, 2, 1)
        for _, dimension in zip(range(chips.bit_length() - 1), order, strict=False):
            shape[dimension] *= 2
    else:
        while math.prod(shape) < chips:
            shape[max(i for i, n in enumerate(shape) if n == min(shape))] *= 2
    return "x".join(map(str, shape))


def larger(topology: Topology, times: int) -> Topology:
    """The same chips, so many times as many or the next arrangement that has more; more slices,
    where there are none so large.
    """
    chip = topology.chip
    name = chip.name if chip else CPU
    if chip is None or not isinstance(chip.links, Torus):
        return parse(f"{name}:{topology.chips * times}")
    arranged = arrangement(name, topology.chips // topology.slices * times)
    try:
        return parse(f"{name}:{arranged}", topology.slices)
    except UserError:
        return parse(topology.name, topology.slices * times)
