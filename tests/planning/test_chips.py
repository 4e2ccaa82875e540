"""The table of chips: every number has a source, and agrees with what libtpu and JAX say."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from planning.chip import Torus
from planning.chips import CHIPS, chip_of
from reporting.hardware import peak_flops

RECORDED = json.loads(Path("bench/results/chips_tpu_aot.json").read_text())["chips"]


@pytest.mark.parametrize("name", list(CHIPS))
def test_every_number_has_a_source(name):
    chip = CHIPS[name]
    numbers = {
        field.name
        for field in dataclasses.fields(chip)
        if isinstance(value := getattr(chip, field.name), int | float) and value > 1
    }
    needed = {"links", "host", "product"} | ({"estimated"} if chip.estimated else set())
    assert numbers | needed <= set(chip.sources), name
    assert all(chip.sources.values())


@pytest.mark.parametrize("name", list(RECORDED))
def test_what_libtpu_says(name):
    chip, found = CHIPS[name], RECORDED[name]
    assert chip_of(found["device_kind"]) is chip
    assert chip.devices == found["devices_a_chip"]
    assert chip.cores == found["devices_a_chip"] * found["cores_a_device"]
    assert chip.estimated == pytest.approx(found["share_of_units"], abs=1e-3)
    assert chip.product >= chip.estimated and 0 <= chip.shown <= 1
    assert chip.usable / 2**30 <= found["usable_GiB"] * chip.devices
    assert chip.usable / 2**30 == pytest.approx(found["usable_GiB"] * chip.devices, rel=0.01)


@pytest.mark.parametrize(
    ("name", "gigahertz"), [("v4", 1.05), ("v5e", 1.5), ("v5p", 1.75), ("v6e", 1.75)]
)
def test_clock(name, gigahertz):
    assert CHIPS[name].clock == pytest.approx(gigahertz * 1e9, rel=0.01)
    # What the compiler calls a cycle does not do more than the units can.
    recorded = RECORDED[name]
    assert recorded["flops_a_cycle"] * CHIPS[name].clock <= CHIPS[name].bf16


def test_gpus_count_no_cycles():
    assert CHIPS["h100"].clock is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "tpu7x"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_chip_of(kind, name):
    assert chip_of(kind) is CHIPS[name]


def test_a_device_that_is_a_core_has_its_share_of_the_peak():
    chiplet = SimpleNamespace(device_kind="TPU7x", num_cores=1)
    assert peak_flops(chiplet) == (2307e12 / 2, CHIPS["tpu7x"].sources["bf16"])
    both = SimpleNamespace(device_kind="TPU v5", num_cores=2)
    assert peak_flops(both)[0] == 459e12


def test_precisions():
    v5e, h100 = CHIPS["v5e"], CHIPS["h100"]
    assert (v5e.peak(), v5e.peak("int8"), v5e.peak("fp8")) == (197e12, 393e12, 197e12)
    assert h100.peak("fp8") == 1979e12


@pytest.mark.parametrize(
    ("name", "shape", "rings"),
    [
        ("v5e", (16, 16), (True, True)),
        ("v5e", (8, 16), (False, True)),
        ("v6e", (4, 4), (False, False)),
        ("v5p", (4, 4, 8), (True, True, True)),
        ("v5p", (2, 4, 4), (False, False, False)),
        ("tpu7x", (4, 4, 4), (True, True, True)),
    ],
)
def test_rings(name, shape, rings):
    links = CHIPS[name].links
    assert isinstance(links, Torus) and links.wraps(shape) == rings
