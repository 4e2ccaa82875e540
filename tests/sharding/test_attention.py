"""Which kernel computes attention, by hardware and by what the model asks of it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sharding.attention import kernel
from tests.model.conftest import small_config


@pytest.mark.parametrize(
    ("platform", "options", "name"),
    [
        ("tpu", {}, "splash (Pallas)"),
        ("tpu", {"sliding_window": 8, "attention_softcap": 3.0}, "splash (Pallas)"),
        ("tpu", {"dtype": "float32"}, "blockwise (XLA)"),
        ("gpu", {}, "flash (Pallas, Triton)"),
        ("gpu", {"sliding_window": 8}, "blockwise (XLA)"),
        ("gpu", {"attention_softcap": 3.0}, "blockwise (XLA)"),
        ("gpu", {"dtype": "float32"}, "blockwise (XLA)"),
        ("cpu", {}, "blockwise (XLA)"),
    ],
)
def test_the_kernel(platform: str, options: dict[str, Any], name: str) -> None:
    mesh: Any = SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)]))
    assert kernel(mesh, small_config(**{"dtype": "bfloat16"} | options)).name == name
