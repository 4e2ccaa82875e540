"""Which kernel computes attention, by hardware and by what the model asks of it."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.kernels import blockwise, splash, triton
from sharding import attention as dispatch
from sharding.attention import attention, kernel
from tests.model.conftest import small_config
from tests.training.sharded import mesh_of


@pytest.mark.parametrize(
    ("platform", "options", "name"),
    [
        ("tpu", {}, "splash (Pallas)"),
        ("tpu", {"sliding_window": 8, "attention_softcap": 3.0}, "splash (Pallas)"),
        ("tpu", {"dtype": "float32"}, "blockwise (XLA)"),
        ("gpu", {"head_dim": 64}, "flash (Pallas, Triton)"),
        ("gpu", {"head_dim": 8}, "blockwise (XLA)"),
        ("gpu", {"head_dim": 256}, "blockwise (XLA)"),
        ("gpu", {"head_dim": 64, "sliding_window": 8}, "blockwise (XLA)"),
        ("gpu", {"head_dim": 64, "attention_softcap": 3.0}, "blockwise (XLA)"),
        ("gpu", {"head_dim": 64, "dtype": "float32"}, "blockwise (XLA)"),
        ("cpu", {}, "blockwise (XLA)"),
    ],
)
def test_the_kernel(platform: str, options: dict[str, Any], name: str) -> None:
    devices = np.array([SimpleNamespace(platform=platform)])
    mesh: Any = SimpleNamespace(devices=devices, shape={"context": 1})
    assert kernel(mesh, small_config(**{"dtype": "bfloat16"} | options)).name == name


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 2, 4)])
@pytest.mark.parametrize(
    "attend",
    [
        blockwise.attend,
        functools.partial(splash.attend, interpret=True),
        functools.partial(triton.attend, interpret=True),
    ],
    ids=["blockwise", "splash", "triton"],
)
def test_a_mesh_computes_what_one_device_does(
    attend: Any, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and backward, with key-value heads that `tensor` divides, and with two for four."""
    monkeypatch.setattr(
        dispatch, "KERNELS", {"whole": (dispatch.Kernel("", "", lambda c: True, attend),)}
    )
    config = small_config(num_heads=4, num_kv_heads=2, head_dim=32)
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(4, 128, n, 32)), jnp.float32) for n in (4, 2, 2))
    segments = jnp.asarray(np.cumsum(rng.random((4, 128)) < 0.05, axis=1), jnp.int32)

    def found(mesh: Any) -> Any:
        on_mesh = attention(mesh, config)

        def total(q: Any, k: Any, v: Any) -> Any:
            return jnp.sum(jnp.sin(on_mesh(q, k, v, segments)))

        return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(q, k, v)

    for a, b in zip(
        jax.tree.leaves(found(mesh_of(*sizes))), jax.tree.leaves(found(mesh_of())), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(np.abs(b).max() + 1))
