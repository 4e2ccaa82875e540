"""Distillation in the head's loop, against all logits at once, differentiated by JAX."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.decoder import unembed
from sharding.table import sharding
from tests.training.sharded import MODEL, mesh_of
from training import head
from training.annotating import likeliest
from training.chunks import Beside, of_tokens
from training.objectives.distillation import IDS, LOG_PROBS, REST, Distill

B, T, V, K = 8, 12, 120, 5
TEACHER = dataclasses.replace(MODEL, embed_dim=16, logit_softcap=7.0)
STUDENT = dataclasses.replace(MODEL, logit_softcap=5.0)
ONE, MESHES = (1, 1, 1), [(2, 2, 2), (1, 2, 4), (1, 8, 1), (1, 2, 2, 2)]
SLOW = pytest.mark.slow


def arrays() -> tuple[Any, ...]:
    """The student's table and features, targets, weights; the teacher's table and features."""
    rng = np.random.default_rng(0)
    weights = (rng.random((B, T)) < 0.7).astype(np.float32)
    weights[3] = 0
    return (
        rng.normal(size=(128, 32)).astype(np.float32),
        rng.normal(size=(B, T, 32)).astype(np.float32),
        rng.integers(0, V, (B, T)).astype(np.int32),
        weights,
        rng.normal(size=(128, 16)).astype(np.float32),
        rng.normal(size=(B, T, 16)).astype(np.float32),
    )


def measure(divergence: str, live: bool, temperature: float = 2.0) -> Distill:
    return Distill(divergence, 0.3, temperature, 0.4, 0.01, TEACHER if live else None)


def outcomes(s: Any, t: Any, top: int | None) -> tuple[Any, Any]:
    """The probabilities p and q that are compared: of all ids, or of the teacher's likeliest, and
    last of all others together.
    """
    p, q = jax.nn.softmax(t), jax.nn.softmax(s)
    if top is None:
        return p, q
    ids = jax.lax.top_k(t, top)[1]
    known = [jnp.take_along_axis(x, ids, -1) for x in (p, q)]
    others = (1 - jnp.sum(x, -1, keepdims=True) for x in known)
    p, q = (jnp.concatenate(pair, -1) for pair in zip(known, others, strict=True))
    return p, q


def plain(how: Distill, table: Any, x: Any, targets: Any, weights: Any, tt: Any, tx: Any) -> Any:
    """The objective written out from the whole logits of both."""
    s = unembed(STUDENT, table, x)[..., :V]
    t = unembed(TEACHER, tt, tx)[..., :V]
    log_z = jax.nn.logsumexp(s, -1)
    loss = log_z - jnp.take_along_axis(s, targets[..., None], -1)[..., 0]
    top = None if how.teacher else K
    p, q = outcomes(s / how.temperature, t / how.temperature, top)
    m = how.jsd_weight * p + (1 - how.jsd_weight) * q
    away = {
        "forward_kl": jnp.sum(p * jnp.log(p / q), -1),
        "reverse_kl": jnp.sum(q * jnp.log(q / p), -1),
        "jsd": how.jsd_weight * jnp.sum(p * jnp.log(p / m), -1)
        + (1 - how.jsd_weight) * jnp.sum(q * jnp.log(q / m), -1),
    }[how.divergence]
    away = how.temperature**2 * away
    rows = [jnp.sum(y * weights, 1) for y in (loss, log_z**2, away)]
    objective = how.mix * rows[0] + how.z_loss * rows[1] + (1 - how.mix) * rows[2]
    return jnp.sum(objective), tuple(rows)


def stored(
    values: tuple[Any, ...], temperature: float, sizes: tuple[int, ...] = ONE
) -> dict[str, np.ndarray]:
    """What the pass would keep, unrounded."""
    table, x = values[4:]

    def ask(*arrays: Any) -> Any:
        return of_tokens(
            TEACHER, mesh_of(*sizes), functools.partial(likeliest, K, temperature), *arrays
        )

    found = jax.jit(ask)(table, x, np.zeros((B, T), np.int32))
    return {name: np.asarray(array) for name, array in found.items()}


def compare(sizes: tuple[int, ...], how: Distill) -> None:
    names = ("data", "fsdp", "tensor", "pipeline")
    mesh = mesh_of(**dict(zip(names, sizes, strict=False)))
    values = arrays()
    said = {} if how.teacher else stored(values, how.temperature)

    def ours(table: Any, x: Any, targets: Any, weights: Any, tt: Any, tx: Any, said: Any) -> Any:
        beside = Beside(table_VD=tt, x_BTD=tx) if how.teacher else Beside(said)
        return head.losses(STUDENT, mesh, how, table, x, targets, weights, beside)

    rows = sharding(mesh, ("batch",))
    tables = [sharding(mesh, ("vocab", "embed"), (128, n)) for n in (32, 16)]
    where = (tables[0], rows, rows, rows, tables[1], rows, rows)
    found = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True), in_shardings=where)(
        *values, said
    )
    expected = jax.jit(jax.value_and_grad(lambda *a: plain(how, *a), argnums=(0, 1), has_aux=True))(
        *values
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * float(np.abs(b).max()))
    away = np.asarray(found[0][1].distill_loss)
    assert away[3] == 0 and np.abs(away[[0, 1, 2, 4]]).min() > 0.1  # a row without weight
    assert not np.asarray(found[1][0][V:]).any()  # the padded rows learn nothing


@pytest.mark.parametrize("chunks", [1, 5])
@pytest.mark.parametrize("live", [True, False], ids=["live", "stored"])
@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_against_all_logits_at_once(
    divergence: str, live: bool, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.chunks._chunks", lambda *sizes: chunks)
    compare(ONE, measure(divergence, live))


@pytest.mark.parametrize("live", [True, False], ids=["live", "stored"])
@pytest.mark.parametrize(
    "sizes",
    [MESHES[0], *(pytest.param(s, marks=SLOW) for s in MESHES[1:])],
    ids=lambda s: "x".join(map(str, s)),
)
def test_on_meshes(sizes: tuple[int, ...], live: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.chunks._chunks", lambda *sizes: 3)
    compare(sizes, measure("jsd", live))


def test_the_temperature_is_squared_once() -> None:
    """A long way off, T^2 x KL of softened distributions is T^2 x half the variance of the logits'
    difference over T^2: it does not depend on T (Hinton et al. 2015, section 2.1).
    """
    values = arrays()
    found = {}
    for temperature in (50.0, 100.0):
        how = measure("forward_kl", True, temperature)
        beside = Beside(table_VD=values[4], x_BTD=values[5])
        losses = head.losses(STUDENT, mesh_of(), how, *values[:4], beside)[1]
        found[temperature] = float(np.asarray(losses.distill_loss).sum())
    s, t = unembed(STUDENT, *values[:2])[..., :V], unembed(TEACHER, *values[4:])[..., :V]
    limit = float((np.asarray(jnp.var(s - t, axis=-1)) / 2 * values[3]).sum())
    assert found[50.0] == pytest.approx(limit, rel=0.05)
    assert found[100.0] == pytest.approx(limit, rel=0.025)


@pytest.mark.parametrize("sizes", [ONE, (2, 2, 2)], ids=lambda s: "x".join(map(str, s)))
def test_what_is_stored_is_a_distribution_whose_rest_is_exact(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.chunks._chunks", lambda *sizes: 3)
    values = arrays()
    found = {name: np.float64(x) for name, x in stored(values, 2.0, sizes).items()}
    t = np.asarray(unembed(TEACHER, *values[4:]), np.float64)[..., :V] / 2
    p = np.exp(t - t.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_array_equal(found[IDS], np.argsort(-p, -1)[..., :K])
    np.testing.assert_allclose(np.exp(found[LOG_PROBS]), -np.sort(-p, -1)[..., :K], rtol=1e-4)
    np.testing.assert_allclose(np.exp(found[REST]), np.sort(p, -1)[..., : V - K].sum(-1), rtol=1e-4)


def test_a_teacher_one_place_apart_would_be_seen() -> None:
    """The teacher's logits of a position are of the token after it, as the student's are."""
    table, x, targets, weights, _, _ = arrays()
    same = dataclasses.replace(STUDENT)
    how = dataclasses.replace(measure("forward_kl", True), teacher=same)

    def away(theirs: Any) -> float:
        beside = Beside(table_VD=table, x_BTD=theirs)
        found = head.losses(STUDENT, mesh_of(), how, table, x, targets, weights, beside)[1]
        return float(np.asarray(found.distill_loss).sum())

    assert abs(away(x)) < 1e-3 < 1 < away(np.roll(x, 1, axis=1))
