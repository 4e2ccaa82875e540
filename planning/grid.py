"""Where in the mesh the devices are that a compiled program numbers."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from jax.sharding import AbstractMesh, Mesh


@dataclasses.dataclass(frozen=True)
class Grid:
    """A mesh as far as exchanges know it.

    A program numbers its devices by their place in the mesh, row by row: number 3 is
    `mesh.devices.flat[3]`, whatever id the hardware gives it. Where the mesh has several slices of
    TPUs, each runs a program of its own that numbers its own devices in this order.

    Attributes:
      sizes: devices along each axis, outermost first.
      ids: of the devices, row by row.
      slices: the slice in which each of them lies.
    """

    sizes: Mapping[str, int]
    ids: tuple[int, ...]
    slices: tuple[int, ...]

    def axes(self, groups: np.ndarray, partitions: int = 0) -> tuple[str, ...]:
        """The axes along which the members of a group differ.

        Args:
          groups: int [groups, members] of numbers in the program.
          partitions: how many devices the program is for; by default all of the mesh.

        Returns:
          Names, in the order of the mesh. Groups smaller than the product of their sizes have a
          part of these axes only.

        Raises:
          ValueError: if the program is for neither the mesh nor one of its slices.
        """
        return self._differ(self._here(groups, partitions))

    def ahead(self, pairs: np.ndarray, partitions: int = 0) -> int:
        """To the how manieth device after itself, along the axes in which they differ, most of the
        sources send; below 0 to one before. Behind the last device comes the first.

        Args:
          pairs: int [pairs, 2] of numbers in the program: sources and targets.
          partitions: see `axes`.
        """
        pairs = self._here(pairs, partitions)
        axes, sizes = self._differ(pairs), tuple(self.sizes.values())
        if not axes:
            return 0
        places = np.unravel_index(pairs, sizes)
        along = [i for i, name in enumerate(self.sizes) if name in axes]
        n = math.prod(sizes[i] for i in along)
        order = np.ravel_multi_index([places[i] for i in along], [sizes[i] for i in along])
        steps, counts = np.unique((order[:, 1] - order[:, 0]) % n, return_counts=True)
        most = int(steps[counts.argmax()])
        return most if 2 * most <= n else most - n

    def axes_across(self, groups: np.ndarray) -> tuple[str, ...]:
        """The same for groups of devices' ids."""
        place = {number: n for n, number in enumerate(self.ids)}
        return self._differ(np.vectorize(place.__getitem__, otypes=[int])(groups))

    def _here(self, groups: np.ndarray, partitions: int) -> np.ndarray:
        """Places in the mesh of what a program numbers."""
        here = np.arange(len(self.ids))
        if partitions not in (0, len(here)):
            here = here[np.asarray(self.slices) == self.slices[0]]
        if partitions not in (0, len(here)) or (groups.size and groups.max() >= len(here)):
            most = max(partitions, int(groups.max()) + 1)
            raise ValueError(f"a program for {most} devices is not for the mesh {dict(self.sizes)}")
        found: np.ndarray = here[groups]
        return found

    def _differ(self, groups: np.ndarray) -> tuple[str, ...]:
        places = np.unravel_index(groups, tuple(self.sizes.values()))
        return tuple(
            name
            for name, place in zip(self.sizes, places, strict=True)
            if (place != place[:, :1]).any()
        )


def grid(mesh: Mesh | AbstractMesh) -> Grid:
    """Of a mesh; an abstract one is taken to lie in one slice."""
    sizes = dict(mesh.shape)
    if isinstance(mesh, AbstractMesh):
        count = math.prod(sizes.values())
        return Grid(sizes, tuple(range(count)), (0,) * count)
    devices = list(mesh.devices.flat)
    slices = tuple(getattr(device, "slice_index", None) or 0 for device in devices)
    return Grid(sizes, tuple(device.id for device in devices), slices)
