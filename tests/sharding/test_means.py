"""How a decoder computes, by hardware and config."""

import builtins
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from errors import UserError
from model import products
from model.layers import einsum
from sharding.config import AXES
from sharding.means import means
from tests.model.conftest import small_config


def mesh_of(platform: str) -> Any:
    device = SimpleNamespace(platform=platform)
    return SimpleNamespace(devices=np.array([device]), size=1, shape=dict.fromkeys(AXES, 1))


def test_products_are_flat_on_cpus_alone() -> None:
    assert means(mesh_of("cpu"), small_config()).multiply is products.flat
    assert means(mesh_of("tpu"), small_config()).multiply is einsum
    assert means(mesh_of("gpu"), small_config()).multiply is einsum


def test_without_qwix(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("qwix"):
            raise ModuleNotFoundError(name, name="qwix")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(
        UserError,
        match=r"^config\.model\.quantization='int8' needs the package qwix: "
        r"`make setup QUANTIZATION=1`\Z",
    ):
        means(mesh_of("tpu"), small_config(quantization="int8"))
