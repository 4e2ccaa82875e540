"""How many devices lie along each axis of the mesh."""

import dataclasses
import math
from typing import Literal

AXES = ("pipeline", "data", "fsdp", "expert", "context", "tensor")
"""Mesh axes, outermost first: neighbours along the last ones are nearest in the hardware."""

OVER_SLICES = ("pipeline", "data", "fsdp")
"""Those that may go from one slice of chips to the next, over the network of the data centre."""

ContextAttention = Literal["auto", "ring", "gather"]


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; one of them may be -1: whatever is left.

    Attributes:
      data: copies of the model; each takes its share of the batch.
      fsdp: the batch is split, and so are parameters and optimizer state, gathered layer by layer.
      tensor: heads, MLP width and vocabulary are split.
      context: rows are split along their length, and so are parameters, as along fsdp.
      expert: the batch is split, and so are the experts of each layer: tokens travel to them
        (sharding/experts.py). Of all other parameters it is a part of fsdp.
      pipeline: stages that layers are split into (see sharding/schedule.py); the vocabulary is
        split over them too.
      context_attention: how a token reaches keys and values on other devices along `context`.
        "ring": they travel round, while each device computes with what has come; memory is that of
        a device's part of the row. "gather": each device gets all of a layer's. "auto": what the
        hardware has the better kernel for, the ring if that is all the same.
      rounds: that a microbatch makes through the stages, each through another group of layers.
        More of them leave stages less time without work, for more exchanges.
      microbatches: that go through the stages one after the other, of the rows that a step (of
        train.accumulation) or an evaluation has at a time; 0 is four for each stage, or as many as
        the rows on a device can be split into.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    context: int = 1
    expert: int = 1
    pipeline: int = 1
    context_attention: ContextAttention = "auto"
    rounds: int = 1
    microbatches: int = 0

    def __post_init__(self) -> None:
        for axis in AXES:
            size = getattr(self, axis)
            if size == 0 or size < -1:
                raise ValueError(f"{axis}={size}: give a number of devices, or -1 for the rest")
        if self.rounds < 1:
            raise ValueError(f"rounds={self.rounds}: must be at least 1")
        if self.microbatches < 0:
            raise ValueError(f"microbatches={self.microbatches}: must not be negative")
        if sum(getattr(self, axis) == -1 for axis in AXES) > 1:
            raise ValueError("only one axis can be -1 (the devices that are left)")

    def sizes(self, devices: int) -> dict[str, int]:
        """The size of each axis on so many devices, in the order of AXES.

        Raises:
          ValueError: if the axes do not multiply to the number of devices.
        """
        sizes = {axis: getattr(self, axis) for axis in AXES}
        fixed = 1
        for size in sizes.values():
            fixed *= size if size != -1 else 1
        asked = ", ".join(f"{a}={s}" for a, s in sizes.items() if s != 1) or "all axes 1"
        for axis, size in sizes.items():
            if size == -1:
                if devices % fixed:
                    raise ValueError(
                        f"{asked}: the fixed axes take {fixed} devices, which does not divide the "
                        f"{devices} there are"
                    )
                sizes[axis] = devices // fixed
                return sizes
        if fixed != devices:
            raise ValueError(
                f"{asked}: takes {fixed} device{'s' * (fixed != 1)}, but there "
                f"{'is' if devices == 1 else 'are'} {devices}; set one axis to -1 to take the rest"
            )
        return sizes


def decoding_mesh(devices: int, *sizes: int) -> MeshConfig:
    """The layout to generate with: no weight is gathered for a token, whatever the devices.

    Args:
      devices: how many there are.
      sizes: the dimensions that `tensor` splits: query heads, MLP width, vocabulary.

    Returns:
      tensor as large as devices and sizes allow; along `data` lie copies.
    """
    tensor = math.gcd(devices, *sizes)
    return MeshConfig(data=devices // tensor, tensor=tensor)
