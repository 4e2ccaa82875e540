"""Schedules and optimizers against their formulas, written out."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model import parameters
from tests.model.conftest import small_config
from tests.training.sharded import mesh_of
from training.config import OptimizerConfig
from training.optimizer import make_optimizer
from training.schedule import learning_rate

PEAK, STEPS = 2e-3, 50


def optimizer(config: OptimizerConfig, kind: str = "gpt2") -> optax.GradientTransformation:
    return make_optimizer(config, STEPS, parameters.outline(small_config(kind)), mesh_of())


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
    tx = optimizer(config, kind)
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
    tx = optimizer(config)
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


def orthogonal_by_hand(m: np.ndarray) -> np.ndarray:
    """Newton and Schulz's iteration as Jordan et al. give it, on a matrix in float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = m.T if m.shape[0] > m.shape[1] else m
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if m.shape[0] > m.shape[1] else x


def test_muon_against_numpy():
    """Matrices of the blocks, layer by layer; AdamW elsewhere."""
    config = OptimizerConfig(name="muon", learning_rate=PEAK, warmup_steps=0, schedule="constant")
    adamw = OptimizerConfig(learning_rate=PEAK, warmup_steps=0, schedule="constant")
    shapes = parameters.shapes(parameters.outline(small_config("gpt2")))
    rng = np.random.default_rng(1)

    def some() -> dict:
        return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes)

    params, gradients = some(), [some(), some()]
    found, plain = [], []
    for kept, how in ((found, config), (plain, adamw)):
        tx = optimizer(how)
        state = tx.init(params)
        for g in gradients:
            updates, state = tx.update(g, state, params)
            kept.append(updates)
    attention, mlp = ("blocks", "attention"), ("blocks", "mlp")
    matrices = {
        (*attention, "query"): 1,
        (*attention, "key"): 1,
        (*attention, "value"): 1,
        (*attention, "out"): 2,
        (*mlp, "up"): 1,
        (*mlp, "down"): 1,
    }

    def at(tree: dict, path: tuple[str, ...]) -> np.ndarray:
        for key in path:
            tree = tree[key]
        return np.asarray(tree, np.float64)

    norms = [
        np.sqrt(sum(float((np.asarray(x, np.float64) ** 2).sum()) for x in jax.tree.leaves(g)))
        for g in gradients
    ]
    for path, inputs in matrices.items():
        one, two = (at(g, path) / max(n, 1) for g, n in zip(gradients, norms, strict=True))
        for step, momentum in enumerate((one + 0.95 * one, two + 0.95 * (two + 0.95 * one))):
            for layer in range(len(one)):
                m = momentum[layer]
                rows = int(np.prod(m.shape[:inputs]))
                square = orthogonal_by_hand(m.reshape(rows, -1))
                scaled = 0.2 * np.sqrt(max(square.shape)) * square
                expected = -PEAK * (scaled.reshape(m.shape) + 0.1 * at(params, path)[layer])
                got = at(found[step], path)[layer]
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5, err_msg=str(path))
    rest = 0
    for keys, update in jax.tree_util.tree_leaves_with_path(found[1]):
        path = tuple(key.key for key in keys)
        if path not in matrices:
            np.testing.assert_allclose(update, at(plain[1], path), rtol=1e-6, atol=1e-9)
            rest += 1
    assert rest > 4


def test_lion_against_numpy():
    config = OptimizerConfig(
        name="lion", learning_rate=PEAK, warmup_steps=0, schedule="constant", clip_norm=0
    )
    tx = optimizer(config)
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 4)).astype(np.float32)
    state, m = tx.init({"w": jnp.asarray(w)}), np.zeros((3, 4))
    for _ in range(3):
        g = rng.normal(size=w.shape).astype(np.float32)
        updates, state = tx.update({"w": jnp.asarray(g)}, state, {"w": jnp.asarray(w)})
        expected = -PEAK * (np.sign(0.9 * m + 0.1 * g) + 0.1 * w)
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-5)
        m = 0.95 * m + 0.05 * g


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (dict(schedule="wsd"), "decay_steps=0: the wsd schedule"),
        (dict(learning_rate=0.0), "learning_rate=0.0: must be positive"),
        (dict(final_fraction=2.0), "final_fraction=2.0"),
        (dict(clip_norm=-1.0), "clip_norm=-1.0"),
        (dict(momentum=1.0), "momentum=1.0: must lie in"),
    ],
)
def test_impossible_optimizers(values, says):
    with pytest.raises(ValueError, match=says):
        OptimizerConfig(**values)
