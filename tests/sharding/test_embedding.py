"""Tokens looked up in a split table: as in a whole one, forward and backward, and it stays."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from planning.program import read
from sharding import embedding
from sharding.config import AXES
from sharding.embedding import looking_up
from sharding.table import sharding

VOCAB, WIDTH = 64, 16


def mesh(**sizes: int) -> Mesh:
    """Of any axes, also of those that are for other models."""
    shape = [sizes.get(axis, 1) for axis in AXES]
    devices = np.array(jax.devices()[: math.prod(shape)]).reshape(shape)
    return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def step(on: Mesh, rows: int, length: int) -> tuple[Any, tuple[jax.Array, ...]]:
    """A function of a table, tokens and the slope of the result; and these."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((VOCAB, WIDTH)).astype(np.float32)
    tokens = rng.integers(0, VOCAB, (rows, length)).astype(np.int32)
    slope = rng.standard_normal((rows, length, WIDTH)).astype(np.float32)
    look_up = looking_up(on)

    def both(table: jax.Array, tokens: jax.Array, slope: jax.Array) -> Any:
        x, back = jax.vjp(lambda t: look_up(t, tokens, jnp.float32), table)
        return x, back(slope)[0]

    axes = ("vocab", "embed"), ("batch", "length"), ("batch", "act_length", "act_embed")
    given = (table, tokens, slope)
    where = tuple(sharding(on, a, x.shape) for a, x in zip(axes, given, strict=True))
    function = jax.jit(both, in_shardings=where, out_shardings=(where[2], where[0]))
    return function, tuple(jax.device_put(x, w) for x, w in zip(given, where, strict=True))


@pytest.mark.parametrize(
    ("sizes", "rows", "length"),
    [
        (dict(tensor=8), 2, 8),
        (dict(pipeline=8), 2, 8),
        (dict(pipeline=2, fsdp=2, tensor=2), 4, 8),
        (dict(data=2, pipeline=2, tensor=2), 4, 7),  # a length that is not divided
        (dict(fsdp=2, tensor=4), 1, 1),  # a token of the one row that is decoded
        (dict(context=2, fsdp=2, tensor=2), 4, 8),
        (dict(context=2, expert=2, pipeline=2), 4, 8),
        (dict(context=2, fsdp=4), 4, 8),  # a table of which only the width is split
        (dict(expert=2, fsdp=2, tensor=2), 2, 8),  # rows for fsdp, and none for experts
    ],
)
@pytest.mark.parametrize("at_once", [1, 1 << 28])
def test_same_as_a_whole_table(
    sizes: dict[str, int], rows: int, length: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of the batch at once, and one at a time."""
    monkeypatch.setattr(embedding, "_AT_ONCE", at_once)
    function, given = step(mesh(**sizes), rows, length)
    x, gradient = function(*given)
    table, tokens, slope = (np.asarray(a) for a in given)
    np.testing.assert_array_equal(x, table[tokens])
    expected = np.zeros_like(table)
    np.add.at(expected, tokens, slope)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5)


def test_features_are_nowhere_whole() -> None:
    """Where the table's width is split over devices of other rows and of other tokens."""
    on = mesh(context=4, fsdp=2)
    function, given = step(on, 4, 8)
    found = read(function.lower(*given).compile(), on).exchanges
    assert max(e.sent for e in found) <= 4 * 8 * WIDTH * 4 // 8


def test_the_table_stays_where_it_is() -> None:
    """What goes over the links is of the tokens, not of the vocabulary."""
    on = mesh(pipeline=2, fsdp=2, tensor=2)
    function, given = step(on, 4, 8)
    found = read(function.lower(*given).compile(), on).exchanges
    assert max(e.sent for e in found) <= 4 * 8 * WIDTH * 4
    assert {(e.kind, e.axes) for e in found} == {
        ("all-gather", ("fsdp",)),  # tokens
        ("reduce-scatter", ("tensor",)),
        ("all-to-all", ("fsdp",)),
        ("all-reduce", ("pipeline",)),
        ("all-gather", ("tensor",)),  # the slope
    }
