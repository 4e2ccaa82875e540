"""Generation: the cache changes nothing, and sampling keeps to its rules."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model import parameters
from model.generation import Generator, Sampling, sample
from sharding.config import decoding_mesh
from sharding.means import means
from sharding.mesh import make_mesh
from sharding.table import sharding
from tests.model.conftest import lively, runner, small_config
from training.state import abstract_params, shardings_of


def _generator(kind, how):
    model = lively(small_config(kind))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return model, Generator(parameters.outline(model.config), params, how)


def test_with_cache_equals_without(kind):
    model, generator = _generator(kind, Sampling(temperature=0))
    run = runner(model.config)
    ones = np.ones((1, 24), np.int32)
    for prompt in ([5], list(range(10))):
        want = list(prompt)
        for _ in range(12):
            padded = np.array([want + [0] * (24 - len(want))], np.int32)
            logits = run(padded, np.arange(24)[None], ones)  # causal: padding is not seen
            want.append(int(logits[0, len(want) - 1].argmax()))
        assert list(generator(prompt, max_tokens=12, seed=0)) == want[len(prompt) :]


def test_logits_with_cache_equal_logits_without(kind):
    model = lively(small_config(kind))
    tokens = jax.random.randint(jax.random.key(0), (2, 16), 0, 61)
    positions, ones = jnp.broadcast_to(jnp.arange(16), (2, 16)), jnp.ones_like(tokens)
    want = runner(model.config)(tokens, positions, ones)
    cache, got = model.empty_cache(2, 20), []
    for part in (slice(0, 7), slice(7, 8), slice(8, 16)):
        x, cache, _ = model.features(
            tokens[:, part], positions[:, part], ones[:, part], cache, part.start
        )
        got.append(model.unembed(x))
    np.testing.assert_allclose(
        jnp.concatenate(got, 1)[..., :61], want[..., :61], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("kind", "devices"),
    [("gpt2", 1), ("gpt2", 2), ("multi_query", 3), ("llama", 8), ("mixtral", 8), ("deepseek", 2)],
)
def test_same_text_on_the_mesh_made_for_decoding(kind, devices):
    config = small_config(kind)
    sizes = config.num_heads, *config.mlp_widths, config.padded_vocab_size
    mesh = make_mesh(decoding_mesh(devices, *sizes), jax.devices()[:devices])
    assert (mesh.shape["tensor"], mesh.shape["fsdp"]) == (math.gcd(devices, 4), 1)
    outline = parameters.outline(config, means(mesh, config))
    values = nnx.to_pure_dict(nnx.state(lively(config), nnx.Param))
    params = jax.device_put(values, shardings_of(abstract_params(outline, mesh)))
    how = Sampling(temperature=1.5, top_p=0.95)
    _, alone = _generator(kind, how)
    spread = Generator(outline, params, how, sharding(mesh, ()))
    want = list(alone([3, 4, 5], max_tokens=12, seed=7))
    assert list(spread([3, 4, 5], max_tokens=12, seed=7)) == want


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_weights_are_cast_once_and_give_the_same_logits(kind):
    config = small_config(kind, dtype="bfloat16")
    model = lively(config)
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    cast = parameters.in_compute_dtype(parameters.outline(config), params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(cast):
        name = path[-1].key
        keeps = "norm" in str(path) or name in ("out_bias", "down_bias", "position_embedding")
        assert leaf.dtype == (jnp.float32 if keeps else jnp.bfloat16), path
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(cast), strict=True):
        assert before.dtype == jnp.float32 and after.sharding == before.sharding
    tokens = jnp.arange(16)[None]
    arguments = tokens, tokens, jnp.ones_like(tokens)
    run = jax.jit(lambda p: parameters.bind(parameters.outline(config), p)(*arguments))
    # Only the embedding differs where learned positions are added to it.
    exact = config.positions == "rope"
    want, got = run(params)[..., :61], run(cast)[..., :61]
    np.testing.assert_allclose(got, want, rtol=0, atol=0 if exact else 0.05 * np.abs(want).max())
    full = lively(small_config(kind))
    same = nnx.to_pure_dict(nnx.state(full, nnx.Param))
    assert parameters.in_compute_dtype(full, same) is same


def test_same_seed_same_text_and_stop():
    _, generator = _generator("llama", Sampling(temperature=1.5))
    first = list(generator([3, 4], max_tokens=20, seed=7))
    assert first == list(generator([3, 4], max_tokens=20, seed=7))
    assert first != list(generator([3, 4], max_tokens=20, seed=8))
    assert (
        list(generator([3, 4], max_tokens=20, seed=7, stop=first[5]))
        == first[: first.index(first[5])]
    )


def test_too_long_and_empty_are_refused():
    _, generator = _generator("llama", Sampling())
    assert len(list(generator([1] * 20, max_tokens=4, seed=0))) == 4
    with pytest.raises(ValueError, match="together exceed the model's max_length=24"):
        generator([1] * 20, max_tokens=5, seed=0)
    with pytest.raises(ValueError, match="the prompt is empty"):
        generator([], max_tokens=5, seed=0)


def _drawn(logits, how, n=4000):
    rows = jnp.broadcast_to(jnp.log(jnp.asarray(logits)), (n, len(logits)))
    return np.bincount(np.asarray(sample(rows, jax.random.key(0), how)), minlength=len(logits)) / n


def test_sampling_follows_the_distribution():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(_drawn(p, Sampling()), p, atol=0.03)
    hot = np.sqrt(p) / np.sqrt(p).sum()
    np.testing.assert_allclose(_drawn(p, Sampling(temperature=2)), hot, atol=0.03)
    np.testing.assert_allclose(_drawn(p, Sampling(top_k=2)), [0.625, 0.375, 0, 0], atol=0.03)
    # 0.5 alone is not 0.6 yet, so the second joins; 0.8 is, so the third does not.
    np.testing.assert_allclose(_drawn(p, Sampling(top_p=0.6)), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(_drawn(p, Sampling(top_p=1e-9)), [1, 0, 0, 0])
    np.testing.assert_allclose(_drawn(p, Sampling(temperature=0)), [1, 0, 0, 0])


def test_impossible_ids_are_never_drawn():
    assert _drawn([0.0, 0.0, 1e-6, 0.0], Sampling(temperature=3)).tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    "bad", [dict(temperature=-1), dict(top_k=-1), dict(top_p=0), dict(top_p=2)]
)
def test_bad_sampling_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
