"""Any two axes of the mesh together give the loss and the gradients of one device."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest

from model import parameters
from model.config import ModelConfig
from model.moe_config import MoeConfig
from sharding.config import AXES
from sharding.means import means
from tests.training.sharded import MODEL, host, mesh_of, placed
from training.state import abstract_params, shardings_of
from training.step import gradients

DENSE = dataclasses.replace(MODEL, num_layers=4)
EXPERTS = dataclasses.replace(
    DENSE,
    moe=MoeConfig(
        num_experts=4,
        expert_mlp_dim=32,
        shared_experts=1,
        balance_weight=0.02,
        router_z_weight=1e-3,
    ),
)
ORDINARY = {("data", "context")}
"""What no mesh of the other files' ordinary tests has, in seconds."""

SETS = [
    *itertools.combinations(AXES, 2),
    ("fsdp", "expert", "context"),
    ("pipeline", "expert", "tensor"),
]


@functools.cache
def drawn(model: ModelConfig) -> Any:
    return host(jax.jit(lambda: parameters.initialize(model, 0))())


@functools.cache
def found(axes: tuple[str, ...], model: ModelConfig) -> tuple[Any, Any]:
    """Gradients and sums of a batch, with two devices along each axis."""
    mesh = mesh_of(**dict.fromkeys(axes, 2))
    outline = parameters.outline(model, means(mesh, model))
    params = jax.device_put(drawn(model), shardings_of(abstract_params(outline, mesh)))
    of = jax.jit(lambda params, batch: gradients(outline, params, batch, 1, 1e-3, mesh))
    return host(of(params, placed(mesh, 0)))


@pytest.mark.parametrize(
    "axes",
    [pytest.param(a, marks=[] if a in ORDINARY else pytest.mark.slow) for a in SETS],
    ids="-".join,
)
def test_same_as_one_device(axes: tuple[str, ...]) -> None:
    model = EXPERTS if "expert" in axes else DENSE
    (grads, sums), (grads_one, sums_one) = found(axes, model), found((), model)
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    for (path, x), y in zip(leaves, jax.tree.leaves(grads_one), strict=True):
        atol = 1e-5 * float(np.abs(y).max())
        assert atol > 0, path
        np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=str(path))
    assert sums.keys() == sums_one.keys()
    for name, value in sums.items():
        np.testing.assert_allclose(value, sums_one[name], rtol=1e-5, err_msg=name)
