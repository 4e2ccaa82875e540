"""Every divergence against its formula, written out in NumPy's double precision."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.objectives.divergences import DIVERGENCES

M, V = 7, 11


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def written_out(name: str, p: np.ndarray, q: np.ndarray, weight: float) -> np.ndarray:
    def kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * np.log(a / b)).sum(-1)

    if name == "forward_kl":
        return kl(p, q)
    if name == "reverse_kl":
        return kl(q, p)
    m = weight * p + (1 - weight) * q
    return weight * kl(p, m) + (1 - weight) * kl(q, m)


def logits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (M, V))


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_value_and_finite_differences(name: str, weight: float) -> None:
    t, s = logits(0), logits(1)
    log_p, log_q = (jax.nn.log_softmax(jnp.float32(x)) for x in (t, s))
    found = DIVERGENCES[name](log_p, log_q, (), weight)
    expected = written_out(name, softmax(t), softmax(s), weight)
    np.testing.assert_allclose(found.value_M, expected, rtol=1e-5)
    slope = np.empty_like(s)
    for i in range(V):
        step = 1e-5 * np.eye(V)[i]
        up, down = (written_out(name, softmax(t), softmax(s + d), weight) for d in (step, -step))
        slope[:, i] = (up - down) / 2e-5
    np.testing.assert_allclose(found.slope_MV, slope, atol=2e-6)
    assert np.abs(slope).max() > 0.01


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_equal_distributions_have_none(name: str) -> None:
    log_p = jax.nn.log_softmax(jnp.float32(logits(0)))
    found: Any = DIVERGENCES[name](log_p, log_p, (), 0.3)
    np.testing.assert_allclose(found.value_M, 0, atol=1e-6)
    np.testing.assert_allclose(found.slope_MV, 0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_ids_past_the_vocabulary_count_nothing(name: str) -> None:
    padding = np.full((M, 3), -np.inf)
    t, s = (np.concatenate([logits(i), padding], axis=1) for i in (0, 1))
    of_all = [jax.nn.log_softmax(jnp.float32(x)) for x in (t, s)]
    of_real = [jax.nn.log_softmax(jnp.float32(x[:, :V])) for x in (t, s)]
    diverge: Any = DIVERGENCES[name]
    found, expected = (diverge(*pair, (), 0.3) for pair in (of_all, of_real))
    np.testing.assert_allclose(found.value_M, expected.value_M, rtol=1e-6)
    np.testing.assert_allclose(found.slope_MV[:, :V], expected.slope_MV, atol=1e-6)
    assert not np.asarray(found.slope_MV[:, V:]).any()
