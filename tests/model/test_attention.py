"""`attend` against attention written out pair by pair."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attention import attend


def written_out(q, k, v, q_segments, k_segments, q_start, window, softcap, sinks):
    """One query, one head, one key at a time, in float64."""
    B, T, N, H = q.shape
    S, K = k.shape[1:3]
    out = np.zeros((B, T, N, H))
    for b in range(B):
        for n in range(N):
            for t in range(T):
                scores, values = [], []
                for s in range(S):
                    behind = q_start + t - s
                    if behind < 0 or (window and behind >= window):
                        continue
                    if q_segments[b, t] != k_segments[b, s]:
                        continue
                    score = float(q[b, t, n] @ k[b, s, n // (N // K)]) / math.sqrt(H)
                    if softcap:
                        score = softcap * math.tanh(score / softcap)
                    scores.append(score)
                    values.append(v[b, s, n // (N // K)])
                if sinks is not None:
                    scores.append(float(sinks[n]))
                    values.append(np.zeros(H))
                weights = np.exp(np.array(scores) - max(scores))
                out[b, t, n] = (weights / weights.sum()) @ np.array(values)
    return out


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    kv_heads=st.sampled_from([1, 2, 4]),
    window=st.sampled_from([0, 1, 3]),
    softcap=st.sampled_from([0.0, 2.0]),
    with_sinks=st.booleans(),
    cuts=st.lists(st.integers(0, 3), min_size=14, max_size=14),
)
def test_equals_attention_written_out(seed, kv_heads, window, softcap, with_sinks, cuts):
    rng = np.random.default_rng(seed)
    q, k, v = (2 * rng.standard_normal((2, 7, n, 6)) for n in (4, kv_heads, kv_heads))
    segments = np.cumsum(np.array(cuts).reshape(2, 7) == 0, axis=1)
    sinks = rng.standard_normal(4) if with_sinks else None
    got = attend(
        *(jnp.asarray(x, jnp.float32) for x in (q, k, v)),
        jnp.asarray(segments),
        jnp.asarray(segments),
        window=window,
        softcap=softcap,
        sinks_N=None if sinks is None else jnp.asarray(sinks, jnp.float32),
    )
    want = written_out(q, k, v, segments, segments, 0, window, softcap, sinks)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("softcap", [0.0, 3.0])
def test_queries_may_start_behind_the_keys(softcap):
    """As in decoding: two queries at places 4 and 5 of a cache of 8 slots."""
    q, k, v = (jax.random.normal(jax.random.key(i), (1, n, 2, 4)) for i, n in enumerate((2, 8, 8)))
    ones = jnp.ones((1, 8), jnp.int32)
    got = attend(q, k, v, ones[:, :2], ones, q_start=jnp.int32(4), softcap=softcap)
    want = written_out(*map(np.asarray, (q, k, v, ones[:, :2], ones)), 4, 0, softcap, None)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


def test_bfloat16_softmax_is_in_float32():
    """With 512 equal keys each weight is 1/512; a bfloat16 sum would stop growing at 256."""
    ones = jnp.ones((1, 512), jnp.int32)
    q = jnp.zeros((1, 512, 1, 8), jnp.bfloat16)
    v = jnp.ones((1, 512, 1, 8), jnp.bfloat16)
    for softcap in (0.0, 5.0):
        got = attend(q, q, v, ones, ones, softcap=softcap)
        np.testing.assert_allclose(got.astype(jnp.float32), 1.0, atol=0.01)
