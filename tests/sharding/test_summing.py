"""Products that devices sum up: as on one, forward and backward, and no device has a whole row."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.layers import einsum
from planning.program import read
from sharding.summing import summing
from sharding.table import sharding
from tests.training.sharded import mesh_of

ROWS, WIDTH = 4, 16


def program(sizes: dict[str, int], length: int, equation: str, keeps: bool) -> Any:
    """A product and its gradients: the jitted function, and what it is given."""
    mesh = mesh_of(**sizes)
    summed = {"BTNH,NHD->BTD": (8, 4), "BTF,FD->BTD": (32,)}[equation]
    names = {2: ("heads", "head_dim"), 1: ("mlp",)}[len(summed)]
    axes = ("batch", "length", *names), (*names, "embed"), ("batch", "act_length", "act_embed")
    shapes = (ROWS, length, *summed), (*summed, WIDTH), (ROWS, length, WIDTH)
    where = tuple(sharding(mesh, a, shape) for a, shape in zip(axes, shapes, strict=True))
    rng = np.random.default_rng(0)
    given = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    multiply = summing(mesh, einsum, keeps)
    assert multiply is not einsum

    def both(x: jax.Array, w: jax.Array, slope: jax.Array) -> Any:
        y, back = jax.vjp(lambda x, w: multiply(equation, x, w), x, w)
        return y, *back(slope)

    function = jax.jit(both, in_shardings=where, out_shardings=(where[2], *where[:2]))
    return mesh, function, given


@pytest.mark.parametrize("sizes", [dict(context=2, tensor=4), dict(context=2, tensor=2, fsdp=2)])
@pytest.mark.parametrize("equation", ["BTNH,NHD->BTD", "BTF,FD->BTD"])
@pytest.mark.parametrize(("length", "keeps"), [(8, False), (8, True), (1, False)])
def test_same_as_on_one_device(
    sizes: dict[str, int], equation: str, length: int, keeps: bool
) -> None:
    """Also of one token, whose length nothing splits."""
    _, function, given = program(sizes, length, equation, keeps)
    x, w, slope = map(jnp.asarray, given)
    y, back = jax.vjp(lambda x, w: jnp.einsum(equation, x, w), x, w)
    for found, expected in zip(function(*given), (y, *back(slope)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_device_has_its_part_of_the_row() -> None:
    mesh, function, given = program(dict(context=2, tensor=4), 64, "BTF,FD->BTD", False)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in given]
    exchanges = read(function.lower(*shapes).compile(), mesh).exchanges
    assert {(e.kind, e.axes) for e in exchanges if e.sent > 1000} == {
        ("reduce-scatter", ("tensor",)),
        ("all-gather", ("tensor",)),  # the slope
    }
    assert max(e.sent for e in exchanges) < ROWS * 64 // 2 * WIDTH * 4


def test_other_meshes_are_left_to_the_compiler() -> None:
    assert summing(mesh_of(fsdp=2, tensor=2), einsum, False) is einsum
    assert summing(mesh_of(fsdp=2, context=2), einsum, False) is einsum
