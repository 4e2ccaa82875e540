"""GPT-2 124M at its full shape, with random weights: parity, export, and its tokenizer's ids."""

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file

from configs import door, gpt2_124m
from data import tokenizer
from model import parameters
from model.families import gpt2
from model.families.hf_config import HfConfig
from tests.families import to_params, to_tensors
from tests.parity import theirs

TEXT = "Hello world"
IDS = [15496, 995]
LENGTH = 64


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """As published: the config of `transformers` for GPT-2 unless it is told otherwise."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    transformers.GPT2LMHeadModel(transformers.GPT2Config()).save_pretrained(folder)
    return folder


def test_the_config_of_the_shipped_run_is_its_shape(saved):
    read = gpt2.from_hf(HfConfig(json.loads((saved / "config.json").read_text())))
    run = gpt2_124m.get_config()
    run.data.tokenizer = "tokenizer.json"
    shipped = door.read(run, "cpu").model
    same = {"logits_mb": shipped.logits_mb, "spare_vocab": shipped.spare_vocab}
    assert dataclasses.replace(read, **same) == shipped
    padding = (shipped.padded_vocab_size - shipped.vocab_size) * shipped.embed_dim
    assert shipped.num_params() - padding == 124_439_808


def test_logits_and_export(saved, tmp_path, record_property):
    config = gpt2.from_hf(HfConfig(json.loads((saved / "config.json").read_text())))
    tensors = load_file(saved / theirs.FILE)
    params = to_params(gpt2, config, tensors)
    rng = np.random.default_rng(0)
    document = np.array([*IDS, *rng.integers(0, 50257, LENGTH - 2)], np.int32)
    expected = theirs.logits(theirs.load("gpt2", saved), document).detach().numpy()
    outline = parameters.outline(config)
    positions, ones = np.arange(LENGTH)[None], np.ones((1, LENGTH), np.int32)
    logits = jax.jit(lambda params, *rows: parameters.bind(outline, params)(*rows))(
        params, document[None], positions, ones
    )
    difference = float(np.abs(np.asarray(logits)[0, :, :50257] - expected).max())
    record_property("logits", difference)
    assert expected.std() > 0.3 and difference < 1e-4

    written = {"model_type": "gpt2", **gpt2.to_hf(config)}
    (tmp_path / "config.json").write_text(json.dumps(written))
    back = to_tensors(gpt2, config, params)
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    theirs.write(tmp_path, back)
    again = theirs.logits(theirs.load("gpt2", tmp_path), document).detach().numpy()
    np.testing.assert_array_equal(again, expected)


@pytest.mark.skipif(
    not os.environ.get("PODIUM_ASSETS"),
    reason="PODIUM_ASSETS is unset: GPT-2's own files are too large for the repository",
)
def test_the_ids_of_its_tokenizer():
    folder = Path(os.environ["PODIUM_ASSETS"]) / "gpt2"
    vocabulary = json.loads((folder / "encoder.json").read_text())
    merges = (folder / "vocab.bpe").read_text().splitlines()[1:]
    known = transformers.GPT2Tokenizer(vocabulary, [tuple(line.split(" ")) for line in merges])
    ours = tokenizer.load(folder)
    assert ours.encode_batch([TEXT])[0].tolist() == known(TEXT)["input_ids"] == IDS
    more = Path(gpt2_124m.__file__).read_text() + " Ærøskøbing's 東京 42\n\n"
    assert ours.encode_batch([more])[0].tolist() == known(more)["input_ids"]
