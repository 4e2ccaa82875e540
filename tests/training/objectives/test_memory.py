"""As compiled: no array has the logits of all tokens, of neither decoder."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from data import rows
from model import parameters
from model.config import ModelConfig
from sharding.placement import abstract_rows
from tests.training.sharded import mesh_of
from training.objectives.config import ObjectiveConfig
from training.objectives.objective import objective, one_row
from training.state import NOTHING, Fixed, abstract_asked, abstract_params
from training.step import gradients

V, T, B = 1024, 64, 4
MODEL = ModelConfig(
    vocab_size=V,
    num_layers=1,
    embed_dim=8,
    num_heads=2,
    num_kv_heads=2,
    head_dim=4,
    mlp_dim=16,
    max_length=T,
    logits_mb=1,
)
CASES = {
    "distill": ObjectiveConfig("distill", teacher="x", top_k=4),
    "dpo": ObjectiveConfig("dpo", teacher="x"),
}


@pytest.mark.parametrize("live", [True, False], ids=["live", "stored"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_logits_exist_for_a_part_at_a_time(name: str, live: bool) -> None:
    mesh = mesh_of()
    outline = parameters.outline(MODEL)
    theirs = parameters.outline(dataclasses.replace(MODEL, embed_dim=16, dtype="bfloat16"))
    asked = objective(CASES[name], teacher=theirs if live else None)
    fixed = Fixed(teacher=abstract_asked(theirs, mesh)) if live else NOTHING
    assert MODEL.logits_mb << 20 == 4 * B * T * V
    run = jax.jit(lambda p, f, b: gradients(outline, p, b, 1, 0.0, mesh, f, asked))
    some = rows.empty(1, T) | one_row(CASES[name], T)
    batch = abstract_rows(mesh, 4 * B, some)  # four times what a part may have
    text = str(run.lower(abstract_params(outline, mesh), fixed, batch).compile().as_text())
    shapes = re.findall(r"(?:f32|bf16|f16|pred)\[([\d,]+)\]", text)
    sizes = [int(np.prod([int(n) for n in shape.split(",")])) for shape in shapes]
    of_vocabulary = [
        size for size, shape in zip(sizes, shapes, strict=True) if str(V) in shape.split(",")
    ]
    assert max(of_vocabulary) >= B * T * V // 2  # the parts are there, under this name
    assert max(of_vocabulary) <= B * T * V
