"""Peak rates by device kind."""

from types import SimpleNamespace

import pytest

from reporting.hardware import peak_flops


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
    ],
)
def test_known(kind, peak):
    found = peak_flops(SimpleNamespace(device_kind=kind))
    assert found is not None and found[0] == peak


def test_unknown():
    assert peak_flops(SimpleNamespace(device_kind="cpu")) is None
