"""Names of hardware."""

from types import SimpleNamespace

import jax
import pytest

from planning.hardware import devices_of, name_here, name_of, topology_of
from planning.topology import parse


@pytest.mark.parametrize(
    ("topology", "slices", "name", "devices"),
    [
        ("v5e:16x16", 1, "v5e-256", 256),
        ("v5p:8x8x16", 2, "v5p-1024x2", 2048),
        ("h100:64", 1, "h100x64", 64),
        ("cpu:8", 1, "cpux8", 8),
    ],
)
def test_of_a_topology(topology, slices, name, devices):
    assert name_of(parse(topology, slices)) == name
    assert devices_of(name) == devices
    assert topology_of(name) == (topology, slices)


def test_here():
    assert name_here() == f"cpux{len(jax.devices())}"


@pytest.mark.parametrize(
    ("kind", "platform", "count", "slices", "name"),
    [
        ("TPU v5 lite", "tpu", 16, 1, "v5e-16"),
        ("TPU v5", "tpu", 256, 2, "v5p-128x2"),
        ("NVIDIA H100 80GB HBM3", "gpu", 16, 2, "h100x16"),
        ("Some GPU", "gpu", 2, 1, "Some GPUx2"),
    ],
)
def test_of_devices(kind, platform, count, slices, name):
    devices = [
        SimpleNamespace(device_kind=kind, platform=platform, slice_index=i * slices // count)
        for i in range(count)
    ]
    assert name_here(devices) == name


def test_no_hardware():
    with pytest.raises(ValueError, match="'v5e' names no hardware"):
        devices_of("v5e")
