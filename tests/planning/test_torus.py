"""The links of mesh axes and the time of exchanges, against numbers worked out by hand."""

import pytest

from planning.topology import parse
from planning.torus import links
from sharding.config import AXES


def of(topology, axes, slices=1, **sizes):
    return links(parse(topology, slices), dict.fromkeys(AXES, 1) | sizes, axes)


@pytest.mark.parametrize(
    ("topology", "sizes", "axes", "gigabytes"),
    [
        # v5e: 45 GB/s a link one way. Two rings of 16, two links each.
        ("v5e:16x16", dict(fsdp=256), ("fsdp",), 4 * 45),
        ("v5e:16x16", dict(fsdp=16, tensor=16), ("tensor",), 2 * 45),
        # 4x4 has no rings: one link in each dimension.
        ("v5e:4x4", dict(fsdp=16), ("fsdp",), 2 * 45),
        # Half of a ring is a line. The other axis has the other half's ends, 8 apart, in a ring
        # that seven other groups share, and a whole ring.
        ("v5e:16x16", dict(fsdp=32, tensor=8), ("tensor",), 45),
        ("v5e:16x16", dict(fsdp=32, tensor=8), ("fsdp",), 2 * 45 / 8 + 2 * 45),
        ("v5e:16x16", dict(fsdp=32, tensor=8), ("fsdp", "tensor"), 4 * 45),
        # v5p: 90 GB/s a link one way, rings in three dimensions.
        ("v5p:4x4x8", dict(fsdp=128), ("fsdp",), 6 * 90),
        ("v5p:4x4x8", dict(fsdp=32, tensor=4), ("tensor",), 2 * 90),
        ("v5p:4x4x8", dict(fsdp=32, tensor=4), ("fsdp",), 4 * 90),
        ("v5p:2x2x2", dict(fsdp=8), ("fsdp",), 3 * 90),
        # Two devices of a TPU7x chip share its links, if each is of another group.
        ("tpu7x:4x4x4", dict(fsdp=64, tensor=2), ("fsdp",), 6 * 90 / 2),
        ("tpu7x:4x4x4", dict(fsdp=128), ("fsdp",), 6 * 90),
        # NVLink: 900 GB/s both ways.
        ("h100:8", dict(fsdp=8), ("fsdp",), 450),
    ],
)
def test_rates(topology, sizes, axes, gigabytes):
    assert of(topology, axes, **sizes).rate == pytest.approx(gigabytes * 1e9)


def test_an_all_gather_on_a_line():
    """How to Scale Your Model, part 3, quiz 2: bf16[2048, 8192] over 4 of v5e's chips: 3 hops of
    8.4 MB over one link of 45 GB/s."""
    found = of("v5e:8x4", ("tensor",), fsdp=8, tensor=4)
    whole = 2048 * 8192 * 2
    assert found.seconds("all-gather", whole) == pytest.approx(3 * whole / 4 / 45e9)
    assert found.received("all-gather", whole) == 3 * whole / 4


def test_kinds():
    found, whole = of("v5e:16x16", ("tensor",), fsdp=16, tensor=16), 1.6e9
    once = whole * 15 / 16 / 90e9
    assert found.seconds("reduce-scatter", whole) == pytest.approx(once)
    assert found.seconds("all-reduce", whole) == pytest.approx(2 * once)
    assert found.received("all-reduce", whole) == pytest.approx(2 * whole * 15 / 16)
    # The book: a quarter of the all-gather of everything that the 16 devices have.
    assert found.seconds("all-to-all", whole) == pytest.approx(16 * whole / 90e9 / 4)


def test_between_slices():
    """Two slices of v5e: what a slice's 256 chips hold together comes over 100 Gb/s of four."""
    found = of("v5e:16x16", ("fsdp",), 2, fsdp=512)
    assert (found.inside, found.over) == (256, 2)
    whole = 10e9
    inside, between = whole * 255 / 256 / 180e9, whole / 256 / 2 / (12.5e9 / 4)
    assert found.seconds("all-gather", whole) == pytest.approx(inside + between)
    assert found.seconds("all-reduce", whole) == pytest.approx(2 * (inside + between))
    only = of("v5e:16x16", ("data",), 2, data=2, fsdp=256)
    assert (only.inside, only.over) == (1, 2)
    assert only.seconds("all-reduce", 1e9) == pytest.approx(2 * 1e9 / 2 / 3.125e9)


def test_hosts_of_gpus():
    found = of("h100:64", ("fsdp",), fsdp=64)
    assert (found.inside, found.over, found.network) == (8, 8, 50e9)


def test_axes_that_do_not_spread_over_the_slices():
    with pytest.raises(ValueError, match="do not spread over 2 slices"):
        of("v5e:4x4", ("tensor",), 2, tensor=32)
