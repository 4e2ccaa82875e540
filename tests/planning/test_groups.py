"""Who exchanges with whom, in all the ways that XLA writes it, and along which axes."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh

from planning import groups
from planning.grid import Grid, grid

MESH = {"data": 2, "fsdp": 1, "expert": 2, "tensor": 2}
IDS = np.arange(8).reshape(2, 2, 2)


@pytest.mark.parametrize(
    ("written", "expected", "axes"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", IDS.reshape(4, 2), ("tensor",)),
        ("[4,2]<=[8]", IDS.reshape(4, 2), ("tensor",)),
        ("{{0,4},{1,5},{2,6},{3,7}}", IDS.reshape(2, 4).T, ("data",)),
        ("[4,2]<=[2,4]T(1,0)", IDS.reshape(2, 4).T, ("data",)),
        ("[2,4]<=[2,2,2]T(1,0,2)", IDS.transpose(1, 0, 2).reshape(2, 4), ("data", "tensor")),
        ("[1,8]<=[8]", IDS.reshape(1, 8), ("data", "expert", "tensor")),
        ("{}", IDS.reshape(1, 8), ("data", "expert", "tensor")),
        ("{{0},{1},{2},{3},{4},{5},{6},{7}}", IDS.reshape(8, 1), ()),
        ("mesh['a'=4,'b'=2] {'a'}", IDS.reshape(4, 2).T, ("data", "expert")),
        ("mesh['a'=4,'one'=1,'b'=2] {'b','one'}", IDS.reshape(4, 2), ("tensor",)),
        ("mesh[a=8] {a:(2)2}", IDS.transpose(0, 2, 1).reshape(4, 2), ("expert",)),
        (
            "mesh['a'=8] {'a':(1)2,'a':(4)2}",
            IDS.transpose(1, 0, 2).reshape(2, 4),
            ("data", "tensor"),
        ),
        ("mesh['a'=8] {'a':(1)4}", IDS.reshape(4, 2).T, ("data", "expert")),
        (
            "mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}",
            IDS.reshape(4, 2),
            ("tensor",),
        ),
        (
            "mesh['a'=2,'b'=4], device_ids=(7,6,5,4,3,2,1,0) {'b'}",
            IDS.reshape(2, 4)[::-1, ::-1],
            ("expert", "tensor"),
        ),
    ],
)
def test_groups(written: str, expected: np.ndarray, axes: tuple[str, ...]) -> None:
    found = groups.replica_groups(f", channel_id=1, replica_groups={written}, dimensions={{0}}", 8)
    np.testing.assert_array_equal(found, expected)
    assert Grid(MESH, tuple(range(8)), (0,) * 8).axes(found) == axes


@pytest.mark.parametrize(
    ("written", "axes"),
    [
        ("{{0,4},{4,0},{1,5},{5,1},{2,6},{6,2},{3,7},{7,3}}", ("data",)),
        ("{{0,2},{2,4},{4,6},{6,0},{1,3},{3,5},{5,7},{7,1}}", ("data", "expert")),
        ("{{0,0},{1,2},{2,1},{3,3}}", ("expert", "tensor")),
        ("{}", ()),
    ],
)
def test_pairs(written: str, axes: tuple[str, ...]) -> None:
    found = groups.pairs(f", source_target_pairs={written}, metadata={{}}")
    assert Grid(MESH, tuple(range(8)), (0,) * 8).axes(found) == axes


def test_what_is_not_known_is_told() -> None:
    with pytest.raises(ValueError, match="not known: something"):
        groups.replica_groups("replica_groups=something", 8)
    with pytest.raises(ValueError, match="differ in size"):
        groups.replica_groups("replica_groups={{0,1},{2}}", 8)
    with pytest.raises(ValueError, match="for 9 devices is not for the mesh"):
        grid(AbstractMesh((2, 4), ("a", "b"))).axes(np.asarray([[0, 8]]))


def test_numbers_are_places_in_the_mesh() -> None:
    devices = np.asarray(jax.devices()[:4])[[3, 1, 0, 2]].reshape(2, 2)
    found = grid(Mesh(devices, ("a", "b")))
    assert found.ids == (3, 1, 0, 2)
    assert found.axes(np.asarray([[0, 1], [2, 3]])) == ("b",)
    assert found.axes_across(np.asarray([[3, 0]])) == ("a",)


SLICES = Grid(
    {"far": 2, "near": 2, "chip": 2},
    (100_000, 100_001, 200_001, 200_000, 300_000, 300_001, 400_000, 400_001),
    (1, 1, 2, 2, 3, 3, 4, 4),
)


@pytest.mark.parametrize(
    ("written", "axes"),
    [
        ("{{100000,300000},{100001,300001},{200000,400001},{200001,400000}}", ("far",)),
        ("{{100000,200001},{100001,200000},{300000,400000},{300001,400001}}", ("near",)),
        ("{{100000->300000},{300000->100000}}", ("far",)),
        ('"{3,4}x{0:1}"', ("near",)),
        ('"{1,2,3,4}x{0:0}"', ("far", "near", "chip")),
    ],
)
def test_slices(written: str, axes: tuple[str, ...]) -> None:
    found = groups.across_slices(f"{{_xla_megascale_target={written},is_spmd_generated=true}}")
    assert SLICES.axes_across(found) == axes


def test_a_slice_numbers_its_own_devices() -> None:
    assert SLICES.axes(np.asarray([[0, 1]]), partitions=2) == ("chip",)
    with pytest.raises(ValueError, match="for 3 devices"):
        SLICES.axes(np.asarray([[0, 1]]), partitions=3)
