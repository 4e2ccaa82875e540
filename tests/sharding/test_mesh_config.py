"""Sizes of the mesh axes, and refusals."""

import jax
import numpy as np
import pytest

from sharding.config import AXES, MeshConfig, decoding_mesh
from sharding.mesh import make_mesh, over_slices


def sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    return tuple(config.sizes(devices)[axis] for axis in ("data", "fsdp", "tensor"))


def test_fixed_sizes_and_the_rest():
    assert sizes(MeshConfig(data=2, fsdp=2, tensor=2), 8) == (2, 2, 2)
    assert sizes(MeshConfig(data=1, fsdp=-1, tensor=2), 8) == (1, 4, 2)
    assert sizes(MeshConfig(data=-1, fsdp=1, tensor=8), 8) == (1, 1, 8)
    assert list(MeshConfig(data=-1).sizes(8)) == list(AXES)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (dict(data=0), "data=0: give a number of devices"),
        (dict(tensor=-2), "tensor=-2: give a number of devices"),
        (dict(data=-1, fsdp=-1), "only one axis can be -1"),
    ],
)
def test_impossible_sizes(values, says):
    with pytest.raises(ValueError, match=says):
        MeshConfig(**values)


@pytest.mark.parametrize(
    ("values", "devices", "says"),
    [
        (dict(data=3, fsdp=1), 8, "data=3: takes 3 devices, but there are 8"),
        (dict(data=2, fsdp=1), 1, "data=2: takes 2 devices, but there is 1"),
        (dict(data=1, fsdp=1), 8, "all axes 1: takes 1 device, but there are 8"),
        (dict(data=-1, fsdp=1, tensor=3), 8, "take 3 devices, which does not divide the 8"),
    ],
)
def test_sizes_that_do_not_fit_the_devices(values, devices, says):
    with pytest.raises(ValueError, match=says):
        MeshConfig(**values).sizes(devices)


@pytest.mark.parametrize(
    ("devices", "expected"),
    [(1, (1, 1, 1)), (3, (3, 1, 1)), (8, (1, 1, 8)), (12, (3, 1, 4)), (256, (8, 1, 32))],
)
def test_decoding_mesh_for_any_number_of_devices(devices, expected):
    """Heads, MLP and vocabulary of Llama 3 8B."""
    assert sizes(decoding_mesh(devices, 32, 14336, 128256), devices) == expected


def test_mesh_has_every_axis_and_every_device():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert mesh.axis_names == AXES
    assert dict(mesh.shape) == {**dict.fromkeys(AXES, 1), "data": 2, "fsdp": 2, "tensor": 2}
    assert set(mesh.devices.flat) == set(jax.devices())
    assert make_mesh(MeshConfig(data=2, fsdp=1), jax.devices()[:2]).size == 2


@pytest.mark.parametrize(
    ("given", "slices", "expected"),
    [
        (dict(data=2, fsdp=8), 2, dict(data=2)),
        (dict(fsdp=16), 2, dict(fsdp=2)),
        (dict(data=2, fsdp=8), 4, dict(data=2, fsdp=2)),
        (dict(pipeline=2, data=3, fsdp=4), 6, dict(pipeline=2, data=3)),
        (dict(fsdp=8, tensor=2), 1, {}),
    ],
)
def test_the_outermost_axes_go_from_slice_to_slice(given, slices, expected):
    ones = dict.fromkeys(AXES, 1)
    assert over_slices({**ones, **given}, slices) == {**ones, **expected}


def test_what_does_not_spread_over_the_slices():
    with pytest.raises(ValueError, match=r"data=1 x fsdp=3 do not spread over 2 slices: make one"):
        over_slices({**dict.fromkeys(AXES, 1), "fsdp": 3, "tensor": 2}, 2)


def test_each_slice_has_whole_what_exchanges_most():
    """Chips of two slices, as libtpu describes them: tensor and fsdp stay inside one."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(
        platform="tpu", topology_name="v5e:2x4", num_slices=2
    ).devices
    mesh = make_mesh(MeshConfig(data=2, fsdp=4, tensor=2), devices)
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    along = slices.reshape([mesh.shape[axis] for axis in AXES])
    assert (along == along[:, :, :1, :, :, :1]).all()
    assert (along[:, 0] != along[:, 1]).all()
