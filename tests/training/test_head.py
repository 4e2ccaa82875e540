"""The loss on every mesh, against the plain formula on one device."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from model.decoder import unembed
from planning.program import read
from sharding.table import sharding
from tests.training.sharded import MODEL, mesh_of
from training import head
from training.chunks import _chunks
from training.objectives.next_token import NextToken

B, T = 8, 12
MESHES = [(1, 1, 1), (2, 2, 2), (1, 8, 1), (1, 2, 4), (1, 1, 8), (8, 1, 1), (1, 2, 2, 2)]


def on(data: int, fsdp: int, tensor: int, pipeline: int = 1) -> Mesh:
    return mesh_of(data, fsdp, tensor, pipeline=pipeline)


def arrays(seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    weights = (rng.random((B, T)) < 0.7).astype(np.float32)
    weights[3] = 0
    return (
        rng.normal(size=(128, 32)).astype(np.float32),
        rng.normal(size=(B, T, 32)).astype(np.float32),
        rng.integers(0, 120, (B, T)).astype(np.int32),
        weights,
    )


def plain(config: Any, z_loss: float, table: Any, x: Any, targets: Any, weights: Any) -> Any:
    """Everything at once, and differentiated by JAX."""
    logits = unembed(config, table, x)
    log_z = jax.nn.logsumexp(logits, -1)
    at_target = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    loss = jnp.sum((log_z - at_target) * weights, axis=1)
    z = jnp.sum(log_z**2 * weights, axis=1)
    return jnp.sum(loss) + z_loss * jnp.sum(z), (loss, z)


@pytest.mark.parametrize("chunks", [1, 3, 5])
@pytest.mark.parametrize("cap", [0.0, 5.0])
@pytest.mark.parametrize("sizes", MESHES, ids=lambda s: "x".join(map(str, s)))
def test_loss_and_gradients(
    sizes: tuple[int, ...], cap: float, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, config = on(*sizes), dataclasses.replace(MODEL, logit_softcap=cap)
    monkeypatch.setattr("training.chunks._chunks", lambda *sizes: chunks)
    scattered = head._scattered  # in as many parts, or the next number that divides the ids
    monkeypatch.setattr(
        head, "_scattered", lambda x, axes, most: scattered(x, axes, -(-x.nbytes // chunks))
    )
    values = arrays()

    def ours(*arrays: Any) -> Any:
        return head.losses(config, mesh, NextToken(0.1), *arrays)

    rows = sharding(mesh, ("batch",))
    where = (sharding(mesh, ("vocab", "embed"), (128, 32)), rows, rows, rows)
    found = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True), in_shardings=where)(
        *values
    )
    expected = jax.jit(
        jax.value_and_grad(lambda *a: plain(config, 0.1, *a), argnums=(0, 1), has_aux=True)
    )(*values)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(np.abs(b).max()))
    (objective, losses), (table, _) = found
    assert not np.asarray(table[120:]).any()  # the padded rows learn nothing
    without = jax.jit(ours, in_shardings=where)(*values)
    np.testing.assert_allclose(without[0], objective, rtol=1e-6)
    np.testing.assert_allclose(without[1].loss, losses.loss, rtol=1e-6)


@given(length=st.integers(1, 5000), bytes_a_token=st.integers(1, 10**6), most=st.integers(1, 10**9))
def test_parts_are_as_large_as_they_may_be(length: int, bytes_a_token: int, most: int) -> None:
    chunks = _chunks(length, length * bytes_a_token, most)
    tokens = -(-length // chunks)
    assert 1 <= chunks <= length and (chunks - 1) * tokens < length
    assert tokens == 1 or tokens * bytes_a_token <= most
    if chunks > 1:  # fewer would be too large
        assert -(-length // (chunks - 1)) * bytes_a_token > most


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)], ids=lambda s: "x".join(map(str, s)))
def test_the_table_crosses_devices_outside_of_the_loop(
    sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.chunks._chunks", lambda *sizes: T)
    mesh = mesh_of(*sizes)
    rows = sharding(mesh, ("batch",))
    where = (sharding(mesh, ("vocab", "embed"), (128, 32)), rows, rows, rows)
    step = jax.jit(
        jax.value_and_grad(
            lambda *a: head.losses(MODEL, mesh, NextToken(0.1), *a), argnums=(0, 1), has_aux=True
        ),
        in_shardings=where,
    )
    found = read(step.lower(*arrays()).compile(), mesh).exchanges
    of_table = [e for e in found if "fsdp" in e.axes and e.sent > 4 * B * T]
    assert {(e.kind, e.times) for e in of_table} == {("all-gather", 1), ("reduce-scatter", 1)}
    # The loop over chunks exchanges features of a chunk and their gradient, and numbers of [B, C].
    inside = [e for e in found if e.times > 1]
    assert {e.axes for e in inside} == ({("tensor",)} if sizes[2] > 1 else set())
    assert max((e.sent for e in inside), default=0) <= B // 4 * 1 * 32 * 4 * sizes[2]
