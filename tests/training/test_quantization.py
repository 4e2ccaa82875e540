"""Training with products in int8 and fp8: as float32 trains, and on a mesh as on one device."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from model.config import Quantization
from tests.training.sharded import MODEL, STEPS, begin, mesh_of, placed

KINDS = ["int8", pytest.param("fp8", marks=pytest.mark.slow)]
TYPES = {"int8": {"int8"}, "fp8": {"float8_e4m3fn", "float8_e5m2"}}


@functools.cache
def losses(kind: Quantization, sizes: tuple[int, int, int]) -> np.ndarray:
    run = begin(mesh_of(*sizes), dataclasses.replace(MODEL, quantization=kind))
    state, found = run.state, []
    for index in range(STEPS):
        state, metrics = run.step(state, placed(run.mesh, index % 2))
        found.append(float(metrics["loss"]))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_as_float32_does(kind: Quantization) -> None:
    exact, found = losses("none", (1, 1, 1)), losses(kind, (1, 1, 1))
    assert exact[-1] < exact[0] - 0.5  # there is something to learn
    assert 0 < np.abs(found - exact).max() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_mesh_computes_what_one_device_does(kind: Quantization) -> None:
    # What is rounded apart by float32's last digit is a step of 1 / 127 apart.
    np.testing.assert_allclose(losses(kind, (2, 2, 2)), losses(kind, (1, 1, 1)), rtol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_product_of_the_blocks_is_quantized(kind: Quantization) -> None:
    """Forward, and both of the backward pass: seven weights."""
    run = begin(mesh_of(), dataclasses.replace(MODEL, quantization=kind))
    found = list(factors(jax.make_jaxpr(run.step)(run.abstract, placed(run.mesh, 0))))
    quantized = [types for types in found if set(types) <= TYPES[kind]]
    assert len(quantized) == 3 * 7


def factors(value: Any) -> Any:
    """The dtypes of the factors of every product in a jaxpr, and in those inside it."""
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from factors(part)
    elif hasattr(value, "eqns"):
        for equation in value.eqns:
            if equation.primitive.name == "dot_general":
                yield tuple(str(v.aval.dtype) for v in equation.invars)
            else:
                yield from factors(list(equation.params.values()))
    elif hasattr(value, "jaxpr"):
        yield from factors(value.jaxpr)
