"""How long the kernels of attention take: libtpu's schedule of them, of which programs say nothing.

A kernel goes through blocks of queries and keys, one bundle of instructions a cycle. A block takes
as many cycles as it has bundles, or as the matrix units need for its products, whichever is more:
softmax and masks are the bundles' part, and on v6e most of it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from planning.chip import Chip
from planning.kernels import PRODUCTS, Attention

SOURCE = "libtpu 0.0.52: `python -m bench kernels`, bench/results/kernels_tpu_aot.json"

SIDE = 512
SIZES = (128, 256)


class Cycles(NamedTuple):
    """Bundles of instructions of a core.

    Attributes:
      step: of each block that is gone through, whether it is computed or not.
      line: of a line's beginning and its end.
      block: of one that is computed.
    """

    step: int
    line: int
    block: int


def _of(**phases: tuple[int, ...]) -> Mapping[str, tuple[Cycles, Cycles]]:
    """By phase, for heads of each of SIZES."""
    return MappingProxyType({key: (Cycles(*n[:3]), Cycles(*n[3:])) for key, n in phases.items()})


CYCLES: Mapping[str, Mapping[str, tuple[Cycles, Cycles]]] = MappingProxyType(
    {
        "v4": _of(
            fwd=(364, 799, 1819, 363, 910, 3269),
            dkv=(536, 259, 2651, 538, 515, 4335),
            dq=(415, 131, 2070, 410, 259, 3542),
        ),
        "v5e": _of(
            fwd=(58, 506, 1181, 61, 595, 2239),
            dkv=(77, 184, 1915, 78, 368, 3904),
            dq=(65, 111, 1510, 70, 207, 2926),
        ),
        "v5p": _of(
            fwd=(171, 509, 1184, 190, 598, 2172),
            dkv=(209, 164, 1908, 257, 386, 3713),
            dq=(145, 111, 1497, 145, 207, 2947),
        ),
        "v6e": _of(
            fwd=(58, 254, 993, 61, 287, 1058),
            dkv=(77, 103, 1447, 78, 208, 1496),
            dq=(65, 70, 1172, 70, 127, 1210),
        ),
        "tpu7x": _of(
            fwd=(54, 230, 979, 112, 261, 1521),
            dkv=(72, 105, 1299, 126, 213, 1383),
            dq=(65, 58, 1124, 102, 115, 1197),
        ),
    }
)
"""By the chip's name: `SOURCE`."""


def seconds(chip: Chip, one: Attention) -> float | None:
    """Of a device of a chip; None where no schedule is known.

    Blocks of another side take time with their area, lines with their length, and heads of another
    size what lies between, or beyond, on a straight line; none takes less than one of 128.
    """
    if chip.name not in CYCLES or not chip.clock:
        return None
    known = CYCLES[chip.name][one.phase]
    share = max(0.0, (one.size - SIZES[0]) / (SIZES[1] - SIZES[0]))
    step, line, block = (a + share * (b - a) for a, b in zip(*known, strict=True))
    wide, cores = -(-one.size // chip.side) * chip.side, chip.cores // chip.devices
    products = PRODUCTS[one.phase] * SIDE**2 * wide / (chip.units // chip.cores * chip.side**2)
    long = one.side / SIDE
    cycles = (
        one.steps * step + one.lines * line * long + one.blocks * max(block, products) * long**2
    )
    return cycles / cores / chip.clock
