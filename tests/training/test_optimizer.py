"""Schedules and AdamW against their formulas, written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import parameters
from tests.model.conftest import small_config
from training.config import OptimizerConfig
from training.optimizer import learning_rate, make_optimizer

PEAK, STEPS = 2e-3, 50


def rates(**config) -> np.ndarray:
    schedule = learning_rate(OptimizerConfig(learning_rate=PEAK, **config), STEPS)
    return np.asarray(schedule(np.arange(STEPS)))


def test_warmup_reaches_the_peak():
    warm = rates(schedule="constant", warmup_steps=10)
    np.testing.assert_allclose(warm[:10], PEAK * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(warm[10:], PEAK, rtol=1e-6)
    np.testing.assert_allclose(rates(schedule="constant", warmup_steps=0), PEAK, rtol=1e-6)


def test_cosine():
    expected = [
        PEAK * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (s - 10) / (STEPS - 1 - 10))))
        for s in range(10, STEPS)
    ]
    found = rates(schedule="cosine", warmup_steps=10, final_fraction=0.1)
    np.testing.assert_allclose(found[10:], expected, rtol=1e-5)
    assert found[-1] == pytest.approx(0.1 * PEAK, rel=1e-5)


def test_wsd():
    found = rates(schedule="wsd", warmup_steps=10, decay_steps=20, final_fraction=0.0)
    np.testing.assert_allclose(found[10:30], PEAK, rtol=1e-6)
    falling = PEAK * (STEPS - 1 - np.arange(30, STEPS)) / 20
    np.testing.assert_allclose(found[30:], falling, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("kind", ["gpt2", "everything"])
def test_norm_scales_and_biases_are_not_decayed(kind):
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, clip_norm=0)
    tx = make_optimizer(config, STEPS)
    params = jax.tree.map(
        lambda s: jnp.ones(s.shape), parameters.shapes(parameters.outline(small_config(kind)))
    )
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    kept = []
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = path[-1].key
        plain = name.endswith(("scale", "bias"))
        np.testing.assert_allclose(update, 0.0 if plain else -0.1 * 0.5, rtol=1e-5, err_msg=name)
        kept += [name] * plain
    assert {name for name in kept if name.endswith("scale")}
    assert {name for name in kept if name.endswith("bias")}


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_adamw_against_numpy(clip):
    config = OptimizerConfig(
        learning_rate=PEAK, schedule="constant", warmup_steps=2, clip_norm=clip
    )
    tx = make_optimizer(config, STEPS)
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 4))
    params = {"w": jnp.asarray(w, jnp.float32)}
    state, m, v = tx.init(params), 0.0, 0.0
    for t in (1, 2, 3):
        g = rng.normal(size=w.shape) * 3
        updates, state = tx.update({"w": jnp.asarray(g, jnp.float32)}, state, params)
        params = {"w": params["w"] + updates["w"]}
        norm = np.sqrt((g**2).sum())
        g = g * min(1, clip / norm) if clip else g
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        unbiased = m / (1 - 0.9**t), v / (1 - 0.95**t)
        rate = PEAK * min(t / 2, 1)
        w = w - rate * (unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8) + 0.1 * w)
        np.testing.assert_allclose(params["w"], w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (dict(schedule="wsd"), "decay_steps=0: the wsd schedule"),
        (dict(learning_rate=0.0), "learning_rate=0.0: must be positive"),
        (dict(final_fraction=2.0), "final_fraction=2.0"),
        (dict(clip_norm=-1.0), "clip_norm=-1.0"),
    ],
)
def test_impossible_optimizers(values, says):
    with pytest.raises(ValueError, match=says):
        OptimizerConfig(**values)
