"""Names of hardware, by which a config has its layouts: v5e-256, v5p-1024x2, h100x8, cpux8.

Of TPUs a slice by its chips, and after an x how many slices, where there are several; of all other
devices their number, after an x.
"""

import re
from collections.abc import Sequence

import jax

from planning.chip import Chip, Torus
from planning.chips import CHIPS, chip_of
from planning.topology import CPU, Topology, arrangement


def name_of(topology: Topology) -> str:
    """The name of a topology's hardware."""
    return _name(topology.chip, topology.devices, topology.slices)


def name_here(devices: Sequence[jax.Device] | None = None) -> str:
    """The name of the devices that are here, on all processes; their kind, where it is unknown."""
    devices = jax.devices() if devices is None else devices
    chip = chip_of(devices[0].device_kind)
    if chip is None and devices[0].platform != CPU:
        return f"{devices[0].device_kind}x{len(devices)}"
    slices = {getattr(device, "slice_index", 0) for device in devices}
    return _name(chip, len(devices), len(slices))


def memory_here() -> int | None:
    """Bytes that a program may use on each device here; None where the device does not say."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("bytes_limit") if stats else None


def devices_of(name: str) -> int:
    """How many devices a name of hardware stands for, all slices together."""
    found = re.fullmatch(r"[a-z0-9]+-(\d+)(?:x(\d+))?|[a-z0-9]+x(\d+)", name)
    if found is None:
        raise ValueError(f"{name!r} names no hardware: v5e-256, v5p-1024x2, h100x8, cpux8 do")
    return int(found[3]) if found[3] else int(found[1]) * int(found[2] or 1)


def topology_of(name: str) -> tuple[str, int]:
    """--topology and --slices for the name of some hardware; TPUs in their usual arrangement.

    Raises:
      ValueError: it names none.
    """
    devices = devices_of(name)
    if found := re.fullmatch(r"([a-z0-9]+)-(\d+)(?:x(\d+))?", name):
        chip = CHIPS[found[1]]
        chips = int(found[2]) // chip.devices
        return f"{chip.name}:{arrangement(chip.name, chips)}", int(found[3] or 1)
    return f"{name.rpartition('x')[0]}:{devices}", 1


def _name(chip: Chip | None, devices: int, slices: int) -> str:
    if chip is None or not isinstance(chip.links, Torus):
        return f"{chip.name if chip else CPU}x{devices}"
    return f"{chip.name}-{devices // slices}" + (f"x{slices}" if slices > 1 else "")
