"""What the options of families make of a decoder is the same on a mesh as on one device."""

import dataclasses

import jax
import numpy as np
import pytest

from model.config import ModelConfig
from tests.model.conftest import small_config
from tests.training.test_pairs import found

SHAPE = dict(vocab_size=120, num_layers=4, max_length=64)
MESHES = [
    ("data", "fsdp", "tensor"),
    ("fsdp", "context", "tensor"),
    ("pipeline", "fsdp", "tensor"),
    ("fsdp", "expert", "tensor"),
]
CASES = [
    pytest.param(kind, axes, id=f"{kind}-{axes}")
    for kind in ("gemma3", "olmo2", "latent", "gpt_oss")
    for axes in MESHES
    if "expert" not in axes or kind in ("latent", "gpt_oss")
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "axes"), CASES)
def test_same_as_one_device(kind: str, axes: tuple[str, ...]) -> None:
    model: ModelConfig = small_config(kind, **SHAPE)
    if model.moe.first_dense:  # stages divide the layers of each kind
        moe = dataclasses.replace(model.moe, first_dense=2)
        model = dataclasses.replace(model, moe=moe)
    (grads, sums), (grads_one, sums_one) = found(axes, model), found((), model)
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    for (path, x), y in zip(leaves, jax.tree.leaves(grads_one), strict=True):
        scale = float(np.abs(y).max())
        assert scale > 0 or "balance_bias" in str(path), path
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * scale, err_msg=str(path))
    for name, value in sums.items():
        np.testing.assert_allclose(value, sums_one[name], rtol=1e-5, err_msg=name)
