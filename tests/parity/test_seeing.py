"""The text part of a model that sees, too: Gemma 3 as it is published from 4B on."""

import json

import jax
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file

from model import parameters
from tests.families import (
    SMALL,
    config_of,
    documents,
    drawn,
    largest_difference,
    rows,
    to_params,
)
from tests.parity import theirs

BEFORE = "language_model."
EYES = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def test_gemma_3(tmp_path, record_property):
    tokens = {f"{name}_token_index": 39 - i for i, name in enumerate(("image", "boi", "eoi"))}
    config = transformers.Gemma3Config(
        text_config=SMALL["gemma3_text"], vision_config=EYES, mm_tokens_per_image=4, **tokens
    )
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    shapes = {key: value.shape for key, value in load_file(tmp_path / theirs.FILE).items()}
    tensors = {key: drawn(key, shape) for key, shape in shapes.items()}
    theirs.write(tmp_path, tensors)
    model = transformers.Gemma3ForConditionalGeneration.from_pretrained(
        tmp_path, attn_implementation="eager", dtype=torch.float32
    ).eval()
    expected = [theirs.logits(model, one).detach().numpy() for one in documents()]

    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    family, ours, hf = config_of(text)
    assert hf.unread() == {}
    of_text = {
        key.removeprefix(BEFORE): value for key, value in tensors.items() if key.startswith(BEFORE)
    }
    assert 0 < len(of_text) < len(tensors)
    outline, given = parameters.outline(ours), rows()
    logits = jax.jit(lambda params, *rows: parameters.bind(outline, params)(*rows))(
        to_params(family, ours, of_text), given.tokens, given.positions, given.segments
    )
    difference = largest_difference(logits, expected)
    record_property("logits", difference)
    assert np.std(np.concatenate(expected)) > 1 and difference < 1e-4
