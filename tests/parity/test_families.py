"""Every family beside a living `transformers`: logits, gradients, and the way back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from model import parameters
from model.config import ModelConfig
from model.families import FAMILIES
from sharding.means import means
from tests.families import (
    config_of,
    documents,
    largest_difference,
    rows,
    to_params,
    to_tensors,
)
from tests.parity import theirs
from tests.training.sharded import mesh_of
from training.loss import batch_sums
from training.state import abstract_params

MESHES = {
    "one device": {},
    "2x2x2": {"data": 2, "fsdp": 2, "tensor": 2},
    "experts": {"data": 2, "fsdp": 2, "expert": 2},
}
LOGITS = 1e-4
GRADIENTS = 1e-3
"""Of the largest number in the gradient of a parameter."""

CASES = [
    (name, mesh)
    for name in FAMILIES
    for mesh in MESHES
    if mesh != "experts" or name in ("mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss")
]


class Both:
    """A small decoder of theirs and of ours.

    Attributes:
      described: ours, as the config.json says it.
      config: the same without losses beside that of tokens.
      tensors: of theirs.
      params: of ours.
      logits: of theirs, of each document alone.
      gradients: of theirs, as our parameters.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.family = FAMILIES[name]
        self.tensors = theirs.save(name, folder, seed=1)
        _, self.described, hf = config_of(json.loads((folder / "config.json").read_text()))
        assert hf.unread() == {}
        config = self.described
        self.params = to_params(self.family, config, self.tensors)
        model = theirs.load(name, folder)
        self.logits = [theirs.logits(model, one).detach().numpy() for one in documents()]
        gradients = theirs.gradients(model, documents(), folder / "gradients")
        self.gradients = to_params(self.family, config, gradients)
        moe = dataclasses.replace(config.moe, balance_weight=0.0, router_z_weight=0.0)
        self.config: ModelConfig = dataclasses.replace(config, moe=moe)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Any:
    made: dict[str, Both] = {}

    def make(name: str) -> Both:
        if name not in made:
            made[name] = Both(name, tmp_path_factory.mktemp(name))
        return made[name]

    return make


def batch() -> dict[str, np.ndarray]:
    """Every document alone and all of them packed, twice each, so that any mesh divides them."""
    given = rows()
    same = given.segments[:, 1:] == given.segments[:, :-1]
    predicted = np.pad(same & (given.segments[:, 1:] > 0), ((0, 0), (0, 1)))
    one = {
        "tokens": given.tokens,
        "positions": given.positions,
        "segments": given.segments,
        "targets": np.roll(given.tokens, -1, axis=1),
        "weights": predicted.astype(np.float32),
        "bytes": np.zeros_like(given.tokens),
    }
    return {key: np.concatenate([value, value]) for key, value in one.items()}


@pytest.mark.parametrize(("name", "mesh"), CASES)
def test_logits_and_gradients(both, name, mesh, record_property):
    here = both(name)
    devices = mesh_of(**MESHES[mesh])
    outline = parameters.outline(here.config, means(devices, here.config))
    where = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(outline, devices))
    params = jax.device_put(here.params, where)
    given = batch()

    @jax.jit
    def computed(params: Any, given: Any) -> Any:
        def loss(params: Any) -> Any:
            model = parameters.bind(outline, params)
            objective, sums = batch_sums(model, given, devices)
            return objective / sums["tokens"]

        model = parameters.bind(outline, params)
        logits = model(given["tokens"], given["positions"], given["segments"])
        return logits, jax.grad(loss)(params)

    logits, gradients = jax.device_get(computed(params, given))
    differences = [largest_difference(logits[half], here.logits) for half in _halves()]
    of_gradients = _largest_of_gradients(here, gradients)
    record_property("logits", max(differences))
    record_property("gradients", of_gradients)
    assert max(differences) < LOGITS
    assert of_gradients < GRADIENTS


def _halves() -> tuple[slice, slice]:
    return slice(0, 4), slice(4, 8)


def _largest_of_gradients(here: Both, ours: Any) -> float:
    """The largest difference: of the largest number of a parameter's gradient."""
    # What only chooses experts has none, nor has what adds the same to all scores of a query.
    none = {"balance_bias"} | ({"key_bias"} if here.config.positions == "learned" else set())
    found = []
    for (path, grad), expected in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(here.gradients), strict=True
    ):
        largest = float(np.abs(expected).max())
        assert (largest > 1e-4) != (path[-1].key in none), (path, largest)  # it tells something
        found.append(np.abs(grad - expected).max() / (1.0 if path[-1].key in none else largest))
    return float(max(found))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_way_back(both, name, tmp_path):
    here = both(name)
    family, config = (
        here.family,
        config_of(json.loads((here.folder / "config.json").read_text()))[1],
    )
    back = to_tensors(family, config, here.params)
    assert back.keys() == here.tensors.keys()
    for key, value in here.tensors.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)
    # And `transformers` computes the same from it, to the bit.
    ids = {"bos_token_id": 1, "eos_token_id": 2}  # of a tokenizer
    written = {"model_type": name, **family.to_hf(config), **ids}
    (tmp_path / "config.json").write_text(json.dumps(written))
    theirs.write(tmp_path, back)
    model = theirs.load(name, tmp_path)
    for document, expected in zip(documents(), here.logits, strict=True):
        found = theirs.logits(model, document).detach().numpy()
        np.testing.assert_array_equal(found, expected)
