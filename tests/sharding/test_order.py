"""The order of a row's tokens on the devices along `context`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.order import natural, spread, starts
from tests.training.sharded import mesh_of

DEVICES, CHUNK = st.integers(2, 17), st.integers(1, 9)


def indices(length: int, devices: int) -> np.ndarray:
    """Of the tokens of a row, in the order of the devices: [devices, 2, length / 2 devices]."""
    chunk = length // (2 * devices)
    return np.asarray(starts(length, devices))[:, :, None] + np.arange(chunk)


@given(devices=DEVICES, chunk=CHUNK)
def test_every_token_is_on_one_device_and_all_do_the_same(devices: int, chunk: int) -> None:
    length = 2 * devices * chunk
    order = indices(length, devices)
    assert order.shape == (devices, 2, chunk)
    np.testing.assert_array_equal(np.sort(order, axis=None), np.arange(length))
    # A causal token looks at as many as its index, and itself.
    work = np.sum(order + 1, axis=(1, 2))
    assert np.all(work == length * (length + 1) // 2 // devices)
    # Within a device tokens stand as in the row: its own attention is causal by index.
    assert np.all(np.diff(order.reshape(devices, -1), axis=1) > 0)


@settings(max_examples=20, deadline=None)
@given(devices=DEVICES, chunk=CHUNK, more=st.sampled_from([(), (3,), (2, 3)]))
def test_natural_is_the_inverse(devices: int, chunk: int, more: tuple[int, ...]) -> None:
    length = 2 * devices * chunk
    x = np.random.default_rng(0).normal(size=(2, length, *more)).astype(np.float32)
    on_devices = x[:, indices(length, devices).ravel()]
    np.testing.assert_array_equal(natural(jnp.asarray(on_devices), devices), x)


@pytest.mark.parametrize("sizes", [dict(context=8), dict(context=2, fsdp=2, tensor=2)], ids=str)
def test_a_batch_is_spread(sizes: dict[str, int]) -> None:
    x = jnp.arange(4 * 48).reshape(4, 48)
    mesh, devices = mesh_of(**sizes), sizes["context"]
    step = jax.jit(lambda x: spread(mesh, x))
    found = step(x)
    np.testing.assert_array_equal(found, x[:, indices(48, devices).ravel()])
    np.testing.assert_array_equal(natural(found, devices), x)
    rows = 4 // sizes.get("fsdp", 1)
    assert found.addressable_shards[0].data.shape == (rows, 48 // devices)
    # What every device has whole, it takes its part of: nothing is sent.
    text = str(step.lower(x).compile().as_text())
    assert not [kind for kind in ("permute", "all-to-all", "all-gather") if kind in text]
    assert spread(mesh_of(fsdp=4), x) is x
