"""An installed libtpu on a machine without a TPU is left out, and prints nothing."""

import importlib.util
import os
from pathlib import Path

import pytest

import commands


def platforms(monkeypatch, packages: set[str], pci: Path, asked: str | None = None) -> list[str]:
    """What JAX is told, with these packages and devices."""
    told: list[str] = []
    monkeypatch.delenv("JAX_PLATFORMS")
    if asked:
        monkeypatch.setenv("JAX_PLATFORMS", asked)
    monkeypatch.setattr("commands._PCI_DEVICES", pci)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name in packages else None
    )
    monkeypatch.setattr("commands.jax.config.update", lambda name, value: told.append(value))
    commands._leave_out_missing_tpu()
    return told


@pytest.fixture
def pci(tmp_path: Path) -> Path:
    (tmp_path / "0000:00:01.0").mkdir()
    (tmp_path / "0000:00:01.0" / "vendor").write_text("0x8086\n")
    return tmp_path


def test_without_a_tpu(monkeypatch, pci):
    assert platforms(monkeypatch, {"libtpu"}, pci) == ["cpu"]
    assert os.environ.get("JAX_PLATFORMS") is None


def test_with_a_gpu(monkeypatch, pci):
    assert platforms(monkeypatch, {"libtpu", "jax_cuda12_plugin"}, pci) == ["cuda,cpu"]


def test_with_a_tpu(monkeypatch, pci):
    (pci / "0000:00:04.0").mkdir()
    (pci / "0000:00:04.0" / "vendor").write_text("0x1ae0\n")
    assert platforms(monkeypatch, {"libtpu"}, pci) == []


@pytest.mark.parametrize("packages", [set(), {"jax_cuda13_plugin"}])
def test_without_libtpu(monkeypatch, pci, packages):
    assert platforms(monkeypatch, packages, pci) == []


def test_what_the_user_asked_for_stays(monkeypatch, pci):
    assert platforms(monkeypatch, {"libtpu"}, pci, asked="tpu") == []
