"""The decoder as Tunix calls it: padding on both sides changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from reinforcement.policy import Policy
from tests.model.conftest import lively, runner, small_config

TEXTS = ([5, 60, 7, 1], [3, 2, 9, 4, 8, 11, 6])
WIDTH = 12


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("gpt2", "gemma")]


@pytest.mark.parametrize("kind", ["llama", *SLOW])
def test_logits_are_those_of_each_text_alone(kind):
    model = lively(small_config(kind))
    policy, config = Policy(model), model.config
    tokens = np.full((2, WIDTH), policy.padding_id, np.int32)
    for row, (text, begin) in enumerate(zip(TEXTS, (6, 2), strict=True)):
        tokens[row, begin : begin + len(text)] = text
    real = (tokens != policy.padding_id).astype(np.int32)
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0)  # as Tunix counts them
    logits, cache = jax.jit(lambda *rows: policy(rows[0], rows[1], None, None, rows[2]))(
        tokens, positions, real
    )
    assert cache is None and logits.shape == (2, WIDTH, config.padded_vocab_size + 1)
    assert np.isfinite(logits).all()
    chances = jax.nn.softmax(logits, axis=-1)
    assert chances[..., config.vocab_size :].max() == 0  # no text has these ids
    for row, (text, begin) in enumerate(zip(TEXTS, (6, 2), strict=True)):
        ids = np.array([text])
        want = runner(config)(ids, np.arange(len(text))[None], np.ones_like(ids))[0]
        got = logits[row, begin : begin + len(text), : config.vocab_size]
        np.testing.assert_allclose(got, want[:, : config.vocab_size], rtol=1e-4, atol=1e-4)


def test_what_is_masked_leaves_no_trace_in_gradients():
    """Tunix multiplies losses by a mask of 0 and 1: one that is not finite would be nan there."""
    policy = Policy(lively(small_config()))
    real = np.array([[0, 0, 1, 1, 1, 0]], np.int32)
    tokens = np.where(real > 0, 7, policy.padding_id)

    def loss(policy, tokens):
        logits, _ = policy(tokens, np.cumsum(real, axis=1), None, None, jnp.asarray(real))
        found = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
        return (found * real).sum()

    grads = nnx.grad(loss)(policy, jnp.asarray(tokens))
    sizes = [float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)]
    assert np.isfinite(sizes).all() and min(sizes) > 0


def test_it_keeps_no_cache():
    policy = Policy(lively(small_config()))
    with pytest.raises(ValueError, match=r"no cache is kept: rollout\.py draws texts"):
        policy(jnp.ones((1, 4), jnp.int32), jnp.arange(4)[None])
