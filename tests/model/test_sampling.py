"""Sampling: each rule against its formula written out, and draws against the distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.sampling import Sampling, row_keys, sample, warped


def _logits(shape, seed):
    """Numbers of sixteenths, so that some are equal."""
    return (np.random.default_rng(seed).integers(-128, 129, shape) / 16).astype(np.float32)


LOGITS = st.builds(
    _logits,
    st.sampled_from([(2, 150), (1, 7)]),  # few shapes: each is compiled
    st.integers(0, 2**32),
)


def probabilities(logits):
    exps = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


def kept(logits, how, seen=None):
    found = np.asarray(warped(jnp.asarray(logits), how, seen))
    assert found.shape == logits.shape
    return found


@settings(deadline=None, max_examples=30)
@given(LOGITS, st.integers(1, 200))
def test_top_k(logits, k):
    found = kept(logits, Sampling(top_k=k))
    for row, got in zip(logits, found, strict=True):
        least = np.sort(row)[::-1][: min(k, len(row))][-1]
        np.testing.assert_array_equal(got, np.where(row >= least, row, -np.inf))


@settings(deadline=None, max_examples=40)
@given(LOGITS, st.floats(0.01, 0.99))
def test_top_p(logits, p):
    found = kept(logits, Sampling(top_p=p))
    for row, got in zip(probabilities(logits), found, strict=True):
        likelier = np.array([row[row > one].sum() for one in row])
        sure = np.abs(likelier - p) > 1e-5
        np.testing.assert_array_equal((got > -np.inf)[sure], (likelier < p)[sure])
        assert got[row.argmax()] > -np.inf


@settings(deadline=None, max_examples=30)
@given(LOGITS, st.floats(0.01, 1))
def test_min_p(logits, p):
    found = kept(logits, Sampling(min_p=p))
    for row, got in zip(probabilities(logits), found, strict=True):
        sure = np.abs(row / row.max() - p) > 1e-5
        np.testing.assert_array_equal((got > -np.inf)[sure], (row >= p * row.max())[sure])
        assert got[row.argmax()] > -np.inf


@settings(deadline=None, max_examples=30)
@given(LOGITS, st.floats(0.1, 3), st.floats(0.2, 3), st.integers(0, 2**32))
def test_penalty_and_temperature(logits, penalty, temperature, seed):
    seen = np.random.default_rng(seed).random(logits.shape) < 0.5
    want = np.where(seen, np.where(logits < 0, logits * penalty, logits / penalty), logits)
    how = Sampling(temperature=temperature, repetition_penalty=penalty)
    np.testing.assert_allclose(kept(logits, how, seen), want / temperature, rtol=1e-5)
    greedy = Sampling(temperature=0, repetition_penalty=penalty)
    np.testing.assert_allclose(kept(logits, greedy, seen), want, rtol=1e-5)


def test_rules_apply_one_after_the_other():
    """top_p is of what top_k left, and so on: each of the three would keep more alone."""
    logits = np.log(np.array([[0.4, 0.3, 0.2, 0.05, 0.05]]))
    how = Sampling(top_k=3, top_p=0.75)  # of 4/9, 3/9 and 2/9 the first two are over 0.75
    assert (kept(logits, how) > -np.inf).tolist() == [[True, True, False, False, False]]
    assert (kept(logits, Sampling(top_p=0.75)) > -np.inf).sum() == 3
    how = Sampling(temperature=0.5, min_p=0.3)  # the squares: 16, 9, 4 of a hundred
    assert (kept(logits, how) > -np.inf).sum() == 2
    assert (kept(logits, Sampling(min_p=0.3)) > -np.inf).sum() == 3


def draw(logits, how, n=4000, **options):
    rows = jnp.broadcast_to(jnp.log(jnp.asarray(logits)), (n, len(logits)))
    return sample(rows, jax.random.split(jax.random.key(0), n), how, **options)


def shares(logits, how):
    tokens = np.asarray(draw(logits, how).tokens_B)
    return np.bincount(tokens, minlength=len(logits)) / len(tokens)


def test_sampling_follows_the_distribution():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    np.testing.assert_allclose(shares(p, Sampling()), p, atol=0.03)
    hot = np.sqrt(p) / np.sqrt(p).sum()
    np.testing.assert_allclose(shares(p, Sampling(temperature=2)), hot, atol=0.03)
    np.testing.assert_allclose(shares(p, Sampling(top_k=2)), [0.625, 0.375, 0, 0], atol=0.03)
    # 0.5 alone is not 0.6 yet, so the second joins; 0.8 is, so the third does not.
    np.testing.assert_allclose(shares(p, Sampling(top_p=0.6)), [0.625, 0.375, 0, 0], atol=0.03)
    np.testing.assert_allclose(shares(p, Sampling(top_p=1e-9)), [1, 0, 0, 0])
    np.testing.assert_allclose(shares(p, Sampling(temperature=0)), [1, 0, 0, 0])


def test_impossible_ids_are_never_drawn():
    assert shares([0.0, 0.0, 1e-6, 0.0], Sampling(temperature=3)).tolist() == [0, 0, 1, 0]


def test_log_probabilities_are_the_models_own():
    p = np.array([0.5, 0.3, 0.15, 0.05])
    found = draw(p, Sampling(temperature=0.3, top_k=2), n=50, top=3)
    np.testing.assert_allclose(found.logprobs_B, np.log(p)[np.asarray(found.tokens_B)], rtol=1e-5)
    assert found.top_ids_BR.tolist() == [[0, 1, 2]] * 50
    np.testing.assert_allclose(found.top_logprobs_BR, [np.log(p[:3])] * 50, rtol=1e-5)
    assert draw(p, Sampling()).top_ids_BR.shape == (4000, 0)


def test_a_key_is_that_of_the_rows_seed():
    keys = row_keys(jnp.array([7, 8, 7], jnp.uint32), jnp.int32(3))
    data = jax.random.key_data(keys).tolist()
    assert data[0] == data[2] != data[1]
    assert data[0] != jax.random.key_data(row_keys(jnp.uint32([7]), jnp.int32(4))).tolist()[0]


@pytest.mark.parametrize(
    "bad",
    [
        dict(temperature=-1),
        dict(top_k=-1),
        dict(top_p=0),
        dict(top_p=2),
        dict(min_p=-0.1),
        dict(min_p=1.5),
        dict(repetition_penalty=0),
    ],
)
def test_bad_sampling_is_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
