"""Products with weights: as two matrices, and quantized, against einsum and formulas."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import products

EQUATIONS = ("BTD,DNH->BTNH", "BTNH,NHD->BTD", "BTF,FD->BTD")


def arrays(equation: str, seed: int, sizes: dict[str, int]) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    x, w = (
        jnp.asarray(rng.standard_normal([sizes[name] for name in names]), jnp.float32)
        for names in equation.partition("->")[0].split(",")
    )
    return x, w


@settings(max_examples=30, deadline=None)
@given(
    equation=st.sampled_from(EQUATIONS),
    seed=st.integers(0, 999),
    sizes=st.fixed_dictionaries({name: st.integers(1, 6) for name in "BTDNHF"}),
)
def test_flat(equation: str, seed: int, sizes: dict[str, int]) -> None:
    x, w = arrays(equation, seed, sizes)
    found = products.flat(equation, x, w)
    np.testing.assert_allclose(found, jnp.einsum(equation, x, w), rtol=1e-5, atol=1e-5)


def rounded(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """What int8 keeps of x, with a scale for whatever is summed over."""
    scale = np.abs(x).max(axis=axes, keepdims=True) / 127.5
    return np.clip(np.round(x / scale), -127, 127) * scale


def test_int8_is_rounding_by_hand() -> None:
    x, w = arrays("BTD,DNH->BTNH", 0, {"B": 2, "T": 8, "D": 16, "N": 2, "H": 4})
    multiply = products.quantized("int8")
    slope = jnp.asarray(np.random.default_rng(1).standard_normal((2, 8, 2, 4)), jnp.float32)
    found, back = jax.vjp(lambda x, w: multiply("BTD,DNH->BTNH", x, w), x, w)
    x_kept, w_kept = rounded(np.asarray(x), (2,)), rounded(np.asarray(w), (0,))
    expected = np.einsum("BTD,DNH->BTNH", x_kept, w_kept)
    # The largest values lie between two steps, 127.5, and go to either.
    exact = np.einsum("BTD,DNH->BTNH", x, w)
    assert np.linalg.norm(found - expected) < 0.4 * np.linalg.norm(found - exact)
    for gradient, equation, factors in zip(
        back(slope),
        ("BTNH,DNH->BTD", "BTNH,BTD->DNH"),
        ((slope, w_kept), (slope, x_kept)),
        strict=True,
    ):
        exact = np.einsum(equation, *(np.asarray(f) for f in factors))
        # What comes in from above is rounded too, with the scales of the other factor in it.
        assert 0 < np.linalg.norm(gradient - exact) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_every_row_has_its_own_scale(kind: str) -> None:
    """A row and a column of large values leave the others as they were."""
    x, w = arrays("BTD,DNH->BTNH", 0, {"B": 2, "T": 4, "D": 16, "N": 2, "H": 4})
    multiply = products.quantized(kind)
    before = np.asarray(multiply("BTD,DNH->BTNH", x, w))
    after = np.asarray(
        multiply("BTD,DNH->BTNH", x.at[1, 2].multiply(1e4), w.at[:, 1, 3].multiply(1e4))
    )
    same = np.ones(before.shape, bool)
    same[1, 2], same[..., 1, 3] = False, False
    np.testing.assert_array_equal(after[same], before[same])


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.02), ("fp8", 0.08)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_lost_is_little(kind: str, most: float, dtype: str) -> None:
    for equation in EQUATIONS:
        x, w = arrays(equation, 0, dict.fromkeys("BTDNHF", 8))

        def total(multiply: Any, x: jax.Array, w: jax.Array, equation: str = equation) -> Any:
            y = multiply(equation, x.astype(dtype), w.astype(dtype))
            slope = np.random.default_rng(1).standard_normal(y.shape)
            return jnp.sum(y.astype(jnp.float32) * slope)

        multiply = products.quantized(kind)
        assert multiply(equation, x.astype(dtype), w.astype(dtype)).dtype == dtype
        found = jax.jit(jax.grad(lambda x, w: total(multiply, x, w), (0, 1)))(x, w)  # noqa: B023
        exact = jax.grad(lambda x, w: total(jnp.einsum, x, w), (0, 1))(x, w)
        for a, b in zip(found, exact, strict=True):
            assert np.linalg.norm(a - b) < most * np.linalg.norm(b)
