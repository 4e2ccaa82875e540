"""What is known of an accelerator: its units, memory, links and host."""

import dataclasses
from collections.abc import Mapping

LINK_SHARE = 0.9
"""Of a TPU link's published rate, what exchanges get: the one-way bandwidths of How to Scale Your
Model, part 2 (v4 and v5e 45 of 50 GB/s, v5p and v6e 90 of 100), which is of measured exchanges. Of
TPU7x the book says nothing; the share is taken over."""


@dataclasses.dataclass(frozen=True)
class Torus:
    """Chips with links to their nearest neighbours, in each of a few dimensions.

    Attributes:
      dimensions: 2 (four links a chip) or 3 (six).
      link: bytes/s of one link in one direction, as published.
      wraps_at: sizes of a dimension at which its ends are linked: with `cubes`, multiples of this
        (and then every dimension has to be one), else exactly this.
      cubes: a slice is made of cubes of wraps_at^3 chips, joined by optical switches, which also
        close the rings (v4, v5p, TPU7x); without, only a whole row of a pod is a ring (v5e, v6e).
      largest: chips of the largest slice.
    """

    dimensions: int
    link: float
    wraps_at: int
    cubes: bool
    largest: int

    def wraps(self, shape: tuple[int, ...]) -> tuple[bool, ...]:
        """Which dimensions of a slice are rings."""
        if self.cubes:
            return (all(n % self.wraps_at == 0 for n in shape),) * len(shape)
        return tuple(n == self.wraps_at for n in shape)

    @property
    def sustained(self) -> float:
        """Bytes/s that exchanges get of one link in one direction."""
        return LINK_SHARE * self.link


@dataclasses.dataclass(frozen=True)
class Switch:
    """GPUs of a host on a switch: each reaches all others at its full rate.

    Attributes:
      rate: bytes/s of one GPU in one direction.
    """

    rate: float


@dataclasses.dataclass(frozen=True)
class Host:
    """The machine that a process runs on. (Of TPUs: the virtual machine of a slice of several.)

    Attributes:
      chips: of one process.
      ram: bytes; 0 where we found no published figure.
      network: bytes/s to other slices (of GPUs: to other hosts), in one direction, of all chips.
      link: bytes/s between it and each chip, in one direction; 0 where we found no figure.
    """

    chips: int
    ram: float
    network: float
    link: float


@dataclasses.dataclass(frozen=True, eq=False)
class Chip:
    """A chip's published constants.

    Attributes:
      name: in --topology, and libtpu's.
      kinds: beginnings of the device_kind that JAX gives it.
      bf16, int8, fp8: FLOP/s or OP/s. 0: the chip has no such units, or the maker gives no figure.
      product: of bf16, what a product of large matrices gets, as measured; where we found no
        measurement of a TPU, as its compiler estimates it.
      estimated: of bf16, what it gets by the compiler's cycles.
      hbm: bytes of memory.
      usable: of them, bytes that a program may use.
      hbm_rate: bytes/s.
      cores: of a chip; a JAX device has all of them, or one (`devices` of a chip).
      devices: JAX devices of a chip.
      units: matrix units of a chip, squares of `side`; 0 where cycles are not counted.
      side: rows and columns of one, which smaller dimensions of a product do not fill.
      links: between chips.
      host: that a process runs on.
      sources: of each attribute that is a number.
    """

    name: str
    kinds: tuple[str, ...]
    bf16: float
    int8: float
    fp8: float
    product: float
    hbm: float
    usable: float
    hbm_rate: float
    links: Torus | Switch
    host: Host
    sources: Mapping[str, str] = dataclasses.field(repr=False)
    cores: int = 1
    devices: int = 1
    units: int = 0
    side: int = 0
    estimated: float = 0.0

    @property
    def clock(self) -> float | None:
        """Cycles a second: what turns the compiler's cycles into time; None where none are counted.

        The published peak over what all matrix units do in a cycle: each of its side x side cells
        multiplies and adds once, 2 x units x side^2 FLOPs. (v4: 1.05 GHz, as Jouppi et al. 2023
        have it; v5e 1.50, v5p and v6e 1.75, TPU7x 2.20.)
        """
        return self.bf16 / (2 * self.units * self.side**2) if self.units else None

    @property
    def shown(self) -> float:
        """Of the time that the compiler adds to what a product takes at the peak, what measurements
        show: 0 is nothing, 1 all of it, as where there are none."""
        if not self.estimated or self.estimated == self.product:
            return 1.0
        return (1 / self.product - 1) / (1 / self.estimated - 1)

    def peak(self, quantization: str = "none") -> float:
        """FLOP/s of products in this precision; those without units of their own run in bf16."""
        return {"int8": self.int8, "fp8": self.fp8}.get(quantization, 0.0) or self.bf16
