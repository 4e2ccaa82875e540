"""Generation: the cache changes nothing, and sampling keeps to its rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model import parameters
from model.generation import Generator, Sampling, sample
from tests.model.conftest import lively, runner, small_config


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
        x, cache = model.features(
            tokens[:, part], positions[:, part], ones[:, part], cache, part.start
        )
        got.append(model.unembed(x))
    np.testing.assert_allclose(
        jnp.concatenate(got, 1)[..., :61], want[..., :61], rtol=1e-4, atol=1e-4
    )


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
