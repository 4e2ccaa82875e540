"""Kernels of attention, forward and backward, against attention written out at once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attention import attend
from model.kernels import blockwise, splash, triton
from tests.jaxprs import equations


def arrays(
    seed: int, length: int, heads: int, kv_heads: int, size: int, cuts: float
) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(seed)
    q, k, v = (
        jnp.asarray(rng.standard_normal((2, length, n, size)), jnp.float32)
        for n in (heads, kv_heads, kv_heads)
    )
    segments = np.cumsum(rng.random((2, length)) < cuts, axis=1)
    segments[1, length - length // 4 :] = 0  # padding at the end of a row
    return q, k, v, jnp.asarray(segments, jnp.int32)


def slopes(function: Callable[..., jax.Array], *arrays: Any, **options: Any) -> Any:
    """The result, and its gradients in all arrays but the segments."""
    q, k, v, segments, sinks = arrays
    upward = jnp.asarray(np.random.default_rng(9).standard_normal(q.shape), jnp.float32)

    def total(q: Any, k: Any, v: Any, sinks: Any) -> Any:
        more = options if sinks is None else options | {"sinks_N": sinks}
        out = function(q, k, v, segments, **more)
        return jnp.sum(out * upward), out

    of = (0, 1, 2, 3) if sinks is not None else (0, 1, 2)
    return jax.jit(jax.value_and_grad(total, argnums=of, has_aux=True))(q, k, v, sinks)


def reference(q: Any, k: Any, v: Any, segments: Any, **options: Any) -> jax.Array:
    return attend(q, k, v, segments, segments, **options)


def compare(function: Callable[..., jax.Array], *arrays: Any, **options: Any) -> None:
    found, expected = slopes(function, *arrays, **options), slopes(reference, *arrays, **options)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(np.abs(b).max() + 1))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    length=st.integers(1, 40),
    kv_heads=st.sampled_from([1, 2, 4]),
    window=st.sampled_from([0, 1, 5, 17]),
    softcap=st.sampled_from([0.0, 2.0]),
    with_sinks=st.booleans(),
    block=st.sampled_from([4, 8, 64]),
    cuts=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_blockwise(
    seed: int,
    length: int,
    kv_heads: int,
    window: int,
    softcap: float,
    with_sinks: bool,
    block: int,
    cuts: float,
) -> None:
    sinks = jnp.asarray([0.5, -1.0, 2.0, 0.0]) if with_sinks else None
    given = arrays(seed, length, 4, kv_heads, 6, cuts)
    work = functools.partial(blockwise.attend, block=block)
    compare(work, *given, sinks, window=window, softcap=softcap)


@pytest.mark.parametrize(
    ("length", "kv_heads", "size", "window", "softcap", "with_sinks"),
    [
        (128, 2, 64, 0, 0.0, False),
        (300, 2, 128, 0, 0.0, True),
        (256, 1, 64, 100, 0.0, False),
        (256, 2, 256, 0, 3.0, False),
    ],
)
def test_splash(
    length: int, kv_heads: int, size: int, window: int, softcap: float, with_sinks: bool
) -> None:
    sinks = jnp.asarray([0.5, -1.0]) if with_sinks else None
    given = arrays(3, length, 2, kv_heads, size, 0.01)
    work = functools.partial(splash.attend, interpret=True)
    compare(work, *given, sinks, window=window, softcap=softcap)


@pytest.mark.parametrize(
    ("length", "size", "window", "softcap", "with_sinks"),
    [
        (1024, 64, 0, 0.0, False),
        (300, 128, 0, 0.0, True),
        (1024, 256, 100, 3.0, False),
        (128, 8, 0, 0.0, False),  # configs/tiny.py
        (512, 80, 0, 0.0, False),
    ],
)
def test_splash_compiles_for_tpus(
    length: int, size: int, window: int, softcap: float, with_sinks: bool, monkeypatch: Any
) -> None:
    """Forward and backward, by the compiler of TPUs, which needs none."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    one = jax.sharding.SingleDeviceSharding(devices[0])

    def like(*shape: int, dtype: Any = jnp.bfloat16) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=one)

    def total(q: Any, k: Any, v: Any, segments: Any, sinks: Any) -> Any:
        more = {"sinks_N": sinks} if with_sinks else {}
        out = splash.attend(q, k, v, segments, window=window, softcap=softcap, **more)
        return jnp.sum(out.astype(jnp.float32))

    q, k = like(2, length, 4, size), like(2, length, 2, size)
    ids, sinks = like(2, length, dtype=jnp.int32), like(4, dtype=jnp.float32)
    step = jax.jit(jax.grad(total, argnums=(0, 1, 2)), out_shardings=one)
    text = str(step.lower(q, k, k, ids, sinks).compile().as_text())
    assert text.count('custom_call_target="tpu_custom_call"') >= 3


@pytest.mark.parametrize(("length", "kv_heads", "size"), [(128, 2, 64), (300, 1, 64), (160, 2, 80)])
def test_triton(length: int, kv_heads: int, size: int) -> None:
    given = arrays(3, length, 2, kv_heads, size, 0.01)
    compare(functools.partial(triton.attend, interpret=True), *given, None)


def test_triton_is_lowered_for_gpus() -> None:
    """Forward and backward, at the shape of GPT-2 and of Llama 3 8B; no GPU is needed for it."""
    h100 = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    one = jax.sharding.AbstractMesh((1,), ("x",), abstract_device=h100)
    for heads, kv_heads, size in ((12, 12, 64), (32, 8, 128)):
        q, k = (jax.ShapeDtypeStruct((1, 1024, n, size), jnp.bfloat16) for n in (heads, kv_heads))
        segments = jax.ShapeDtypeStruct((1, 1024), jnp.int32)

        def total(q: Any, k: Any, v: Any, segments: Any) -> Any:
            return jnp.sum(triton.attend(q, k, v, segments).astype(jnp.float32))

        step = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
        with jax.sharding.use_abstract_mesh(one):
            lowered = step.trace(q, k, k, segments).lower(lowering_platforms=("cuda",))
        text = lowered.as_text()
        assert all(f'name = "{kernel}"' in text for kernel in ("mha_forward", "mha_backward"))


KERNELS = {
    "blockwise": functools.partial(blockwise.attend, block=32),
    "splash": functools.partial(splash.attend, interpret=True),
    "triton": functools.partial(triton.attend, interpret=True),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [64, 80])
def test_in_bfloat16_it_is_as_near_as_attention_written_out(kernel: str, size: int) -> None:
    """Of the float32 result, forward and backward: sums and softmax are in float32."""
    exact = arrays(0, 128, 4, 2, size, 0.05)
    half = (*(x.astype(jnp.bfloat16) for x in exact[:3]), exact[3])
    expected = slopes(reference, *exact, None)
    for function, most in ((reference, 0.006), (KERNELS[kernel], 0.006)):
        found = slopes(function, *half, None)
        assert found[0][1].dtype == jnp.bfloat16
        for a, b in zip(jax.tree.leaves(found[1]), jax.tree.leaves(expected[1]), strict=True):
            assert np.linalg.norm(a.astype(np.float32) - b) < most * np.linalg.norm(b)
        a, b = found[0][1].astype(np.float32), expected[0][1]
        assert np.linalg.norm(a - b) < most * np.linalg.norm(b)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_kept_spares_the_kernel(kernel: str) -> None:
    """Where remat keeps "attention", the backward pass does not run the forward pass again."""
    q, k, v, segments = arrays(0, 128, 4, 2, 64, 0.05)
    keep = jax.checkpoint_policies.save_only_these_names("attention")

    def work(wrap: Callable[..., Any]) -> int:
        attended = wrap(lambda q, k, v: KERNELS[kernel](q, k, v, segments))
        total = jax.grad(lambda q, k, v: jnp.sum(jnp.square(attended(q, k, v))), (0, 1, 2))
        return len(list(equations(jax.make_jaxpr(total)(q, k, v), "dot_general", "pallas_call")))

    plain = work(lambda function: function)
    assert work(functools.partial(jax.checkpoint, policy=keep)) == plain
    assert work(jax.checkpoint) > plain


def test_memory_of_blockwise_is_linear_in_length() -> None:
    """Forward and backward, as compiled: four times the length, four times the memory."""

    def temporaries(length: int) -> int:
        shape = jax.ShapeDtypeStruct((1, length, 4, 32), jnp.float32)
        segments = jax.ShapeDtypeStruct((1, length), jnp.int32)

        def total(q: Any, k: Any, v: Any, segments: Any) -> Any:
            return jnp.sum(blockwise.attend(q, k, v, segments))

        step = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
        memory = step.lower(shape, shape, shape, segments).compile().memory_analysis()
        assert memory is not None
        return int(memory.temp_size_in_bytes)

    assert temporaries(16384) < 4.4 * temporaries(4096)
