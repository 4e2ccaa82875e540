"""One optimizer step: accumulation, the loss, the norms."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model import parameters
from sharding import means as computing
from tests.training.sharded import MODEL, ROWS, STEPS, batch, begin, host, mesh_of, placed
from training.config import TrainConfig
from training.loss import batch_sums, count, means
from training.state import NOTHING, abstract_params
from training.step import gradients


@functools.cache
def params() -> Any:
    return begin(mesh_of()).state.params


@functools.cache
def accumulated(microbatches: int) -> Any:
    outline = parameters.outline(MODEL)
    run = jax.jit(lambda p, b: gradients(outline, p, b, microbatches, 1e-3, mesh_of()))
    return host(run(params(), batch(0)))


@pytest.mark.parametrize("microbatches", [2, 4])
def test_accumulation_is_the_large_batch(microbatches):
    weights = batch(0)["weights"]
    shares = [weights[i::microbatches].sum() for i in range(microbatches)]
    assert len(set(shares)) == microbatches  # padding falls unequally
    found, whole = accumulated(microbatches), accumulated(1)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@functools.cache
def sums(z_loss: float) -> Any:
    outline = parameters.outline(MODEL)

    def total(p: Any, b: Any) -> Any:
        return batch_sums(parameters.bind(outline, p), b, mesh_of(), z_loss)

    return jax.jit(total)


def test_loss_against_numpy():
    rows = batch(0)
    objective, found = sums(0.01)(params(), rows)
    model = parameters.bind(parameters.outline(MODEL), params())
    logits = np.asarray(
        jax.jit(lambda *a: model(*a))(rows["tokens"], rows["positions"], rows["segments"]),
        np.float64,
    )
    assert logits.shape[-1] == 128 and np.isneginf(logits[..., 120:]).all()  # padded vocabulary
    log_z = np.log(np.exp(logits).sum(-1))
    at_target = np.take_along_axis(logits, rows["targets"][..., None], -1)[..., 0]
    loss = ((log_z - at_target) * rows["weights"]).sum()
    z_squared = (log_z**2 * rows["weights"]).sum()
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(found["z_loss"], z_squared, rtol=1e-5)
    np.testing.assert_allclose(objective, loss + 0.01 * z_squared, rtol=1e-5)
    assert found["tokens"] == rows["weights"].sum() and found["bytes"] == rows["bytes"].sum()


@pytest.mark.parametrize("chunks", [1, 4])
def test_gradient_of_the_head_with_z_loss(chunks, monkeypatch):
    """The hand-written backward pass equals the derivative of the plain formula."""
    monkeypatch.setattr("training.chunks._chunks", lambda *sizes: chunks)
    rows, outline = batch(0), parameters.outline(MODEL)

    def plain(p: Any) -> jax.Array:
        logits = parameters.bind(outline, p)(rows["tokens"], rows["positions"], rows["segments"])
        log_z = jax.nn.logsumexp(logits, -1)
        at_target = jnp.take_along_axis(logits, rows["targets"][..., None], -1)[..., 0]
        return jnp.sum((log_z - at_target + 0.1 * log_z**2) * rows["weights"])

    def ours(p: Any) -> jax.Array:
        return batch_sums(parameters.bind(outline, p), rows, mesh_of(), 0.1)[0]

    expected, found = jax.jit(jax.grad(plain))(params()), jax.jit(jax.grad(ours))(params())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))
    assert not np.asarray(found["embedding"][120:]).any()  # the padded rows learn nothing


def test_metrics_and_donation():
    run = begin(mesh_of(), train=TrainConfig(steps=STEPS, batch_size=ROWS, z_loss=1e-3))
    # A sum, not a view of the state: what is looked at from outside cannot be donated.
    before = float(jax.numpy.abs(run.state.params["embedding"]).sum())
    grads, whole = accumulated(1)
    state, metrics = run.step(run.state, NOTHING, placed(run.mesh, 0))
    assert run.state.params["embedding"].is_deleted()
    assert metrics["grad_norm"] == pytest.approx(float(optax.global_norm(grads)), rel=1e-5)
    assert metrics["param_norm"] == pytest.approx(
        float(optax.global_norm(host(state.params))), rel=1e-5
    )
    assert metrics["loss"] == pytest.approx(whole["loss"] / whole["tokens"], rel=1e-5)
    assert metrics["z_loss"] == pytest.approx(whole["z_loss"] / whole["tokens"], rel=1e-5)
    assert metrics["learning_rate"] == pytest.approx(1e-2 / 2)
    assert int(state.step) == 1
    assert float(jax.numpy.abs(state.params["embedding"]).sum()) != before


def test_a_batch_of_nothing_but_padding_changes_nothing_to_nan():
    empty = {name: np.zeros_like(value) for name, value in batch(0).items()}
    outline = parameters.outline(MODEL)
    grads, found = jax.jit(lambda p: gradients(outline, p, empty, 1, 1e-3, mesh_of()))(params())
    assert found["tokens"] == 0
    assert float(optax.global_norm(grads)) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_counts_are_exact_beyond_what_float32_can_hold(dtype):
    values = np.full((4097, 1), 2**13 - 1, dtype)
    values[-1] = 1
    exact = 4096 * (2**13 - 1) + 1
    assert exact > 2**24 and int(np.float32(exact)) != exact
    found = jax.jit(count)(values)
    assert found.dtype == np.int32 and int(found) == exact
    again = means({"tokens": found, "bytes": found, "loss": jnp.float32(exact)})
    assert int(again["tokens"]) == int(again["bytes"]) == exact and again["loss"] == 1


def test_counts_of_microbatches_are_added_exactly():
    rows = dict(batch(0), bytes=np.zeros((ROWS, 16), np.int32))
    rows["bytes"][:4, 0] = 2**24 - 1, 2**24 + 1, 2**24, 1
    outline = parameters.outline(MODEL)
    _, found = jax.jit(lambda p: gradients(outline, p, rows, 2, 0.0, mesh_of()))(params())
    assert int(found["bytes"]) == 3 * 2**24 + 1


@pytest.mark.parametrize("microbatches", [1, 2])
def test_gradients_lie_as_the_parameters_do(microbatches):
    """As compiled, where nothing after them says how: also what microbatches add up is split."""
    mesh = mesh_of(fsdp=8)
    outline = parameters.outline(MODEL, computing.means(mesh, MODEL))
    like = abstract_params(outline, mesh)
    run = jax.jit(lambda p, b: gradients(outline, p, b, microbatches, 0.0, mesh)[0])
    found = run.lower(like, placed(mesh, 0)).compile().output_shardings
    for param, sharding in zip(jax.tree.leaves(like), jax.tree.leaves(found), strict=True):
        assert sharding.is_equivalent_to(param.sharding, param.ndim)
