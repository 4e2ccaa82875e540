"""Log-likelihoods of tokens and their gradient, against all logits at once."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.decoder import unembed
from sharding.table import sharding
from tests.training.sharded import MODEL, mesh_of
from training.objectives.likelihood import log_likelihoods

B, T = 8, 12
CONFIG = dataclasses.replace(MODEL, logit_softcap=5.0)
SLOW = pytest.mark.slow


def arrays() -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(128, 32)).astype(np.float32),
        rng.normal(size=(B, T, 32)).astype(np.float32),
        rng.integers(0, 120, (B, T)).astype(np.int32),
    )


def total(log_probs_BT: Any) -> Any:
    """Anything that weighs every token by something of its own, of either sign."""
    weights = jnp.sin(jnp.arange(B * T)).reshape(B, T)
    return jnp.sum(jnp.square(jnp.sum(log_probs_BT * weights, axis=1))), log_probs_BT


@pytest.mark.parametrize("chunks", [1, 5])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1),
        (2, 2, 2),
        pytest.param((1, 2, 4), marks=SLOW),
        pytest.param((1, 8, 1), marks=SLOW),
    ],
    ids=lambda s: "x".join(map(str, s)),
)
def test_values_and_gradients(
    sizes: tuple[int, int, int], chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.chunks._chunks", lambda *sizes: chunks)
    mesh, values = mesh_of(*sizes), arrays()

    def ours(*arrays: Any) -> Any:
        return total(log_likelihoods(CONFIG, mesh, *arrays))

    def plain(table: Any, x: Any, targets: Any) -> Any:
        log_probs = jax.nn.log_softmax(unembed(CONFIG, table, x), -1)
        return total(jnp.take_along_axis(log_probs, targets[..., None], -1)[..., 0])

    rows = sharding(mesh, ("batch",))
    where = (sharding(mesh, ("vocab", "embed"), (128, 32)), rows, rows)
    gradients = [jax.value_and_grad(f, argnums=(0, 1), has_aux=True) for f in (ours, plain)]
    found = jax.jit(gradients[0], in_shardings=where)(*values)
    expected = jax.jit(gradients[1])(*values)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max()))
