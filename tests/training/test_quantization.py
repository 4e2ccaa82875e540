"""Training with products in int8 and fp8: as float32 trains, and on a mesh as on one device; with
adapters, too.
"""

import dataclasses
import functools
import re
from typing import Any

import jax
import numpy as np
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

from model.config import Quantization, Remat
from tests.jaxprs import equations
from tests.training.sharded import MODEL, OPTIMIZER, STEPS, begin, mesh_of, placed
from tests.training.test_tuning import begin as tuned
from training.state import NOTHING
from training.tuning import TuningConfig

KINDS = ["int8", pytest.param("fp8", marks=pytest.mark.slow)]
TYPES = {"int8": {"int8"}, "fp8": {"float8_e4m3fn", "float8_e5m2"}}


@functools.cache
def losses(kind: Quantization, sizes: tuple[int, int, int], remat: Remat = "none") -> np.ndarray:
    model = dataclasses.replace(MODEL, quantization=kind, remat=remat)
    run = begin(mesh_of(*sizes), model)
    state, found = run.state, []
    for index in range(STEPS):
        state, metrics = run.step(state, NOTHING, placed(run.mesh, index % 2))
        found.append(float(metrics["loss"]))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_as_float32_does(kind: Quantization) -> None:
    exact, found = losses("none", (1, 1, 1)), losses(kind, (1, 1, 1))
    assert exact[-1] < exact[0] - 0.5  # there is something to learn
    assert 0 < np.abs(found - exact).max() < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_mesh_computes_what_one_device_does(kind: Quantization) -> None:
    # What is rounded apart by float32's last digit is a step of 1 / 127 apart.
    np.testing.assert_allclose(losses(kind, (2, 2, 2)), losses(kind, (1, 1, 1)), rtol=5e-3)


@pytest.mark.parametrize(
    "remat", [pytest.param(r, marks=pytest.mark.slow) for r in ("full", "save_dots")]
)
def test_remat_changes_nothing(remat: Remat) -> None:
    np.testing.assert_allclose(
        losses("int8", (1, 1, 1), remat), losses("int8", (1, 1, 1)), rtol=5e-3
    )


def test_what_remat_keeps_of_products_is_not_their_int32() -> None:
    """In bfloat16, as without quantization."""
    model = dataclasses.replace(MODEL, dtype="bfloat16", quantization="int8", remat="save_dots")
    run = begin(mesh_of(), model)
    text = str(jax.make_jaxpr(run.step)(run.abstract, NOTHING, placed(run.mesh, 0)))
    # The scan over layers stacks what is kept, [2 layers, 16 rows, 16 tokens, ...].
    stacked = set(re.findall(r"(\w+)\[2,16,16,\d+(?:,\d+)?\]", text))
    assert "bf16" in stacked and "i32" not in stacked


@pytest.mark.parametrize("kind", KINDS)
def test_every_product_of_the_blocks_is_quantized(kind: Quantization) -> None:
    """Forward, and both of the backward pass: seven weights."""
    run = begin(mesh_of(), dataclasses.replace(MODEL, quantization=kind))
    jaxpr = jax.make_jaxpr(run.step)(run.abstract, NOTHING, placed(run.mesh, 0))
    found = [{str(v.aval.dtype) for v in e.invars} for e in equations(jaxpr, "dot_general")]
    assert sum(types <= TYPES[kind] for types in found) == 3 * 7


LORA = TuningConfig("lora", rank=3)


def operands(run: Any) -> list[set[str]]:
    """The dtypes of each product whose result a step needs. Qwix gives the gradient of a weight
    whether anybody asks or not; what nobody asks for is dead, and XLA leaves it out (below).
    """
    jaxpr = jax.make_jaxpr(run.step)(run.state, run.fixed, placed(run.mesh, 0)).jaxpr
    live, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return [{str(v.aval.dtype) for v in e.invars} for e in equations(live, "dot_general")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_beside_adapters_products_with_weights_are_quantized_alone(kind: Quantization) -> None:
    """Of seven weights one forward and one back to what goes in: none gives a weight's gradient.
    The products with adapters are as they are without quantization.
    """
    found = operands(tuned(LORA, model=dataclasses.replace(MODEL, quantization=kind)))
    exact = operands(tuned(LORA))
    assert sum(types <= TYPES[kind] for types in found) == 2 * 7
    assert len(found) == len(exact) > 2 * 7 + 6 * 7
    assert sum(types == {"float32"} for types in found) == len(exact) - 2 * 7


@pytest.mark.slow
def test_the_compiled_step_has_no_gradient_of_a_frozen_quantized_weight() -> None:
    """Nor keeps quantized activations for it: 256 tokens, two layers."""
    model = dataclasses.replace(MODEL, quantization="int8")
    for tuning, products in ((LORA, 2 * 7), (TuningConfig(), 3 * 7)):
        run = tuned(tuning, model=model)
        step: Any = run.step
        text = step.lower(run.state, run.fixed, placed(run.mesh, 0)).compile().as_text()
        results = re.findall(r"= s32\[(\d+),\d+\]\S* dot\(", text)
        assert len(results) == products
        assert results.count("256") == 2 * 7
        assert bool(re.search(r"s8\[2,16,16,", text)) == (tuning is not LORA)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_beside_quantized_products_learn_as_in_float32(kind: Quantization) -> None:
    """From the loss of the quantized base, for a fresh b is zero."""
    by_kind = []
    for model in (MODEL, dataclasses.replace(MODEL, quantization=kind)):
        run = tuned(LORA, model=model, optimizer=dataclasses.replace(OPTIMIZER, learning_rate=1e-2))
        state, losses_ = run.state, []
        for index in range(8):
            state, metrics = run.step(state, run.fixed, placed(run.mesh, index % 2))
            losses_.append(float(metrics["loss"]))
        by_kind.append(np.array(losses_))
    exact, found = by_kind
    assert exact[-1] < exact[0] - 0.05  # there is something to learn
    assert 0 < np.abs(found - exact).max() < 0.03
    base = tuned(TuningConfig(), model=dataclasses.replace(MODEL, quantization=kind))
    _, metrics = base.step(base.state, base.fixed, placed(base.mesh, 0))
    np.testing.assert_allclose(metrics["loss"], found[0], rtol=3e-6)
    assert abs(found[0] - exact[0]) > 2e-5  # which float32's loss is not
