"""Devices arranged in a mesh."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from sharding.config import AXES, OVER_SLICES, MeshConfig


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all), nearest neighbours along the innermost axes.

    Every axis is Auto: names on tensors say what should lie where, the compiler does the rest.

    Of several slices (or several hosts of GPUs) each holds whole the parts of the mesh that
    exchange most: the outermost axes alone go from slice to slice.

    Raises:
      ValueError: if the axes do not multiply to the number of devices, or the outermost cannot be
        laid over the slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = config.sizes(len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    over = over_slices(sizes, slices)
    inside = tuple(sizes[axis] // over[axis] for axis in AXES)
    if slices == 1:
        grid = mesh_utils.create_device_mesh(inside, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_hybrid_device_mesh(
            inside, tuple(over.values()), devices, allow_split_physical_axes=True
        )
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def reshaped(mesh: Mesh, config: MeshConfig) -> Mesh:
    """Another mesh of the same devices in the same order."""
    sizes = tuple(config.sizes(mesh.size).values())
    return Mesh(mesh.devices.reshape(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def over_slices(sizes: Mapping[str, int], slices: int) -> dict[str, int]:
    """How many parts of each axis lie on slices of their own, outermost axes first.

    Raises:
      ValueError: if the axes that may go from slice to slice are not divided by their number.
    """
    left, over = slices, dict.fromkeys(AXES, 1)
    for axis in OVER_SLICES:
        over[axis] = math.gcd(sizes[axis], left)
        left //= over[axis]
    if left > 1:
        asked = " x ".join(f"{axis}={sizes[axis]}" for axis in OVER_SLICES)
        raise ValueError(
            f"{asked} do not spread over {slices} slices: make one of them a multiple of {slices}; "
            "the other axes stay inside a slice"
        )
    return over
