"""The comparison with transformers: what is compared, and what it needs."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conversion import verifying
from errors import UserError
from model import parameters
from model.families import FAMILIES
from model.families.hf_config import HfConfig
from tests.conversion.models import LLAMA


@pytest.mark.slow
def test_the_largest_difference(monkeypatch, tmp_path):
    config = FAMILIES["llama"].from_hf(HfConfig(LLAMA))
    outline = parameters.outline(config)
    params = jax.jit(lambda: parameters.initialize(config, 0))()
    asked = []

    def theirs(folder, ids):
        asked.append((folder, ids.shape))
        tokens = jnp.asarray(ids)
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        model = parameters.bind(outline, params)
        logits = np.array(model(tokens, positions, jnp.ones_like(tokens)))[..., :300]
        logits[2, 5, 7] += 0.25
        return logits

    monkeypatch.setattr(verifying, "_theirs", theirs)
    found = verifying.difference(tmp_path, outline, params)
    assert found == pytest.approx(0.25, abs=1e-5)
    assert asked == [(tmp_path, (4, 32))]


def test_it_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--verify needs torch and transformers, which Podium"):
        verifying.require()
