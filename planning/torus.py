"""Which links a mesh axis has, and the time that exchanges along it take.

The mesh is laid over the torus by the function that lays out a run (`mesh_utils`), so an axis has
here the links that it will have there. Latencies (about 1 us a hop) are left out: what is counted
are megabytes.
"""

import functools
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from jax.experimental import mesh_utils

from planning.chip import Torus
from planning.topology import Topology
from sharding.config import AXES
from sharding.mesh import over_slices

RECEIVED = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2, "all-to-all": 1}
"""Of each kind, how often (n - 1) / n of the whole come into a device: an all-reduce is a
reduce-scatter and an all-gather. Of a collective-permute the whole comes, from a neighbour."""


class Links(NamedTuple):
    """Of the devices along one mesh axis, or along several at once.

    Attributes:
      inside: how many of them are in a slice.
      over: how many slices they are in.
      rate: bytes/s that come into a device over the links of its slice, where all travel round.
      across: bytes/s of an all-to-all, where each has its own way: what a device has, by the time.
      hop: bytes/s that come into a device from the one before it, of the same slice.
      network: bytes/s that come into a device over the network.
      dimensions: of the torus, that have the axis: how many devices, and how far apart, in chips.
      along: which these are, counted from 0; -1 for a switch, or between two chiplets.
    """

    inside: int
    over: int
    rate: float
    across: float
    hop: float
    network: float
    dimensions: tuple[tuple[int, int], ...] = ()
    along: tuple[int, ...] = (-1,)

    @property
    def size(self) -> int:
        return self.inside * self.over

    def received(self, kind: str, whole: float) -> float:
        """Bytes that come into a device.

        Args:
          kind: of RECEIVED, or collective-permute.
          whole: bytes that a device has after the all-gather, or before the reduce-scatter; of an
            all-to-all or a collective-permute, before and after.
        """
        if kind == "collective-permute":
            return whole
        return RECEIVED[kind] * whole * (self.size - 1) / self.size

    def seconds(self, kind: str, whole: float) -> float:
        """Time of the exchange: inside the slices, then (or before) what is left between them.

        All but all-to-all: whole x (inside - 1) / inside / rate, and for a slice's share of it
        whole / inside x (over - 1) / over / network; an all-reduce twice that. All-to-all: whole /
        across, and whole x (over - 1) / over / network. Collective-permute, to the next device:
        whole / hop.
        """
        if kind == "collective-permute":
            return whole / self.hop
        if self.inside > 1 and kind == "all-to-all":
            inside = whole / self.across
        else:
            inside = whole * (self.inside - 1) / self.inside / self.rate if self.inside > 1 else 0
        share = whole if kind == "all-to-all" else whole / self.inside
        return RECEIVED[kind] * (inside + share * (self.over - 1) / self.over / self.network)


def links(topology: Topology, sizes: Mapping[str, int], axes: tuple[str, ...]) -> Links:
    """The links of a mesh axis, or of several that are exchanged along at once.

    Args:
      topology: the hardware; its chip must be known.
      sizes: of every mesh axis.
      axes: which.

    Raises:
      ValueError: the mesh cannot be laid over the slices (see sharding.mesh.over_slices).
    """
    chip = topology.chip
    assert chip is not None, "simulated devices have no links"
    over_each = over_slices(sizes, topology.slices)
    over = math.prod(over_each[axis] for axis in axes)
    inside = math.prod(sizes[axis] // over_each[axis] for axis in axes)
    network = chip.host.network / (chip.host.chips * chip.devices)
    if not isinstance(chip.links, Torus):
        rate = chip.links.rate
        return Links(inside, over, rate, rate, rate, network)
    places = _places(topology, tuple(sizes[axis] // over_each[axis] for axis in AXES))
    one = tuple(slice(None) if axis in axes else 0 for axis in AXES)
    group = places[one].reshape(-1, places.shape[-1])
    rate, across, dimensions = _rates(topology, chip.links, group)
    # The next device is a neighbour along one dimension: one link leads there.
    hop = chip.links.sustained / min((apart for _, apart in dimensions), default=1)
    along = tuple(i for i, places_in in enumerate(group.T[:-1]) if len(set(places_in)) > 1)
    hop = min(rate, hop)
    return Links(inside, over, rate, across, hop, network, dimensions, along or (-1,))


def _rates(
    topology: Topology, links: Torus, group: np.ndarray[Any, Any]
) -> tuple[float, float, tuple[tuple[int, int], ...]]:
    """Bytes/s into a device from those of its group, of an all-to-all, and the dimensions it has.

    In a dimension: two links if the group goes round a ring, else one (Austin et al. 2025, part 3:
    at the end of a line everything comes over one). Devices that are `apart` share each link
    with the groups in between. Where a chip is two devices and only one is of the group, so do
    they. What goes round uses all dimensions at once. An all-to-all takes as long as its longest
    dimension: of what n devices have there, a quarter crosses the middle each way.
    """
    assert topology.chip is not None
    *positions, core = (np.unique(column) for column in group.T)
    dimensions, rates, crossing = [], [], []
    for taken, size, ring in zip(positions, topology.shape, topology.wraps, strict=False):
        if len(taken) == 1:
            continue
        apart = int(np.diff(taken).min())
        ways = 2 if ring and len(taken) * apart == size else 1
        dimensions.append((len(taken), apart))
        rates.append(ways * links.sustained / apart)
        crossing.append(4 * rates[-1] / len(taken))
    if not dimensions:
        # Of the interface between two chiplets we know no published rate. It is taken for that of
        # all links: JAX's mesh_utils gives it to the axis that exchanges most, so it is no slower.
        rates = crossing = [2 * links.dimensions * links.sustained]
    shared = topology.chip.devices if len(core) == 1 and dimensions else 1
    return sum(rates) / shared, min(crossing) / topology.chip.devices, tuple(dimensions)


@functools.lru_cache(maxsize=256)
def _places(topology: Topology, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Where each device of a slice is, by its place in the mesh: [*shape, dimensions + core]."""
    assert topology.chip is not None
    sizes = (*topology.shape, 1, 1)[:3]
    devices = [
        SimpleNamespace(
            platform="tpu",
            device_kind=topology.chip.kinds[0],
            coords=coords,
            core_on_chip=core,
            process_index=0,
            id=i * topology.chip.devices + core,
        )
        # JAX numbers devices with the first dimension fastest.
        for i, coords in enumerate(tuple(int(n) for n in c[::-1]) for c in np.ndindex(sizes[::-1]))
        for core in range(topology.chip.devices)
    ]
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    where = [(*device.coords, device.core_on_chip) for device in grid.flat]
    return np.array(where).reshape(*shape, 4)
