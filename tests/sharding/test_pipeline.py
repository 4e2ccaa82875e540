"""The loop over stages with layers of any kind: against a plain loop over them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.layers import Loop, scan_layers
from sharding import pipeline
from sharding.config import AXES, MeshConfig
from sharding.schedule import order, schedule
from sharding.table import sharding
from tests.jaxprs import equations
from tests.training.sharded import mesh_of

ROWS, LENGTH, WIDTH, LAYERS = 8, 4, 6, 8
ALL = Loop(1, None)
FULL = Loop(1, jax.checkpoint_policies.nothing_saveable)


def layer(x: jax.Array, w: dict[str, jax.Array], rows: dict[str, jax.Array]) -> Any:
    """A layer with what those of experts have: sums of each row, and loads [E] of each row."""
    h = jnp.einsum("BTD,DF->BTF", x, w["in"].astype(x.dtype))
    h = jnp.tanh(h + rows["shift"][..., None].astype(x.dtype))
    loads = jax.nn.softmax(jnp.sum(h, axis=1)[:, :3] * w["scale"])
    extras = {"loss": jnp.sum(jnp.square(h), axis=(1, 2)), "loads": loads}
    return x + h, extras


def given() -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (ROWS, LENGTH, WIDTH))
    weights = {
        "in": 0.5 * jax.random.normal(keys[1], (LAYERS, WIDTH, WIDTH)),
        "scale": jax.random.normal(keys[2], (LAYERS,)),
    }
    return x, weights, {"shift": jax.random.normal(keys[3], (ROWS, LENGTH))}


def objective(run: Callable[..., Any], x: jax.Array, weights: Any, rows: Any, loop: Loop) -> Any:
    """Everything that comes out counts, each row and each layer in its own way."""
    y, extras = run(layer, x, weights, rows, loop)
    rate = jnp.arange(1.0, ROWS + 1)
    total = jnp.sum(jnp.square(y) * rate[:, None, None])
    total += jnp.sum(extras["loss"] * rate * jnp.arange(1.0, LAYERS + 1)[:, None])
    return total + jnp.sum(jnp.square(extras["loads"] * rate[:, None])), (y, extras)


def gradients(run: Callable[..., Any], loop: Loop) -> Callable[..., Any]:
    def total(x: Any, weights: Any, rows: Any) -> Any:
        return objective(run, x, weights, rows, loop)

    return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)


LAYOUTS = [
    MeshConfig(data=1, pipeline=2, microbatches=4),
    MeshConfig(data=1, pipeline=4, microbatches=2),
    MeshConfig(data=2, pipeline=2, rounds=2, microbatches=4),
    MeshConfig(data=1, pipeline=2, rounds=4),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("loop", [ALL, FULL, Loop(2, FULL.keep)])
def test_same_as_a_loop_over_layers(layout: MeshConfig, loop: Loop) -> None:
    """Values, extras in depth order with rows where they were, and gradients in all that is given;
    and nothing of what stages compute while they have nothing to do, which is not put to use.
    """
    mesh = mesh_of(**{axis: getattr(layout, axis) for axis in AXES})
    x, weights, rows = given()
    expected = jax.jit(gradients(scan_layers, ALL))(x, weights, rows)
    lie = np.array(order(layout.pipeline, layout.rounds, LAYERS))
    placed = {
        name: jax.device_put(
            w[lie], sharding(mesh, ("layers", *("whole",) * (w.ndim - 1)), w.shape)
        )
        for name, w in weights.items()
    }
    found = jax.jit(gradients(pipeline.runner(mesh, layout), loop))(x, placed, rows)
    slopes = found[1]
    slopes = (slopes[0], {n: w[np.argsort(lie)] for n, w in slopes[1].items()}, slopes[2])
    for a, b in zip(jax.tree.leaves((found[0], slopes)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(np.abs(b).max()))


@pytest.mark.parametrize("layout", LAYOUTS[1:3])
@pytest.mark.parametrize("loop", [ALL, FULL])
def test_what_is_kept_for_the_backward_pass(layout: MeshConfig, loop: Loop) -> None:
    """Never weights, which are float32 and cast here: neither those chosen nor those cast. Where
    all is computed again, of each iteration what enters each layer, and no more.
    """
    mesh = mesh_of(**{axis: getattr(layout, axis) for axis in AXES})
    x, weights, rows = given()
    run = gradients(pipeline.runner(mesh, layout), loop)
    half = jax.ShapeDtypeStruct(x.shape, jnp.bfloat16)
    traced = jax.make_jaxpr(lambda *a: run(*a))(half, weights, rows)
    plan = schedule(mesh, layout, ROWS)
    loops = [e for e in equations(traced, "scan") if e.params["length"] == plan.iterations]
    kept = [v.aval for e in loops for v in e.outvars if v.aval.shape[:1] == (plan.iterations,)]
    assert kept
    assert not [a for a in kept if a.shape[-2:] == (WIDTH, WIDTH)]
    if loop is FULL:
        layers, mb = LAYERS // (plan.stages * plan.rounds), ROWS // plan.microbatches
        entering = (plan.iterations, layers, plan.stages, mb, LENGTH, WIDTH)
        wide = [a.shape for a in kept if a.shape[-1:] == (WIDTH,)]
        assert wide == [entering]
