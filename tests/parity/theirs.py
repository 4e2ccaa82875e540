"""Small decoders of every family as `transformers` saves, loads and computes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from model.families import FAMILIES
from tests.families import SMALL, drawn

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

FILE = "model.safetensors"


def save(name: str, folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A checkpoint that `transformers` saves, with weights of tests/families.py in it.

    Its own random weights would do, but that they make logits near zero, which differ by little
    whatever is wrong.
    """
    config = transformers.AutoConfig.for_model(name, **SMALL[name])
    getattr(transformers, FAMILIES[name].ARCHITECTURE)(config).save_pretrained(folder)
    shapes = {key: value.shape for key, value in load_file(folder / FILE).items()}
    tensors = {key: drawn(key, shape, seed) for key, shape in shapes.items()}
    write(folder, tensors)
    return tensors


def write(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    save_file(dict(tensors), folder / FILE, metadata={"format": "pt"})


def load(name: str, folder: Path) -> Any:
    """The model, in float32; every tensor of the file is used, and none is missing."""
    architecture = getattr(transformers, FAMILIES[name].ARCHITECTURE)
    model, told = architecture.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not told[kind], (kind, told[kind])
    return model.eval()


def logits(model: Any, document: np.ndarray) -> torch.Tensor:
    """Of a document alone: [T, V]."""
    return model(input_ids=torch.from_numpy(document[None]).long()).logits[0]


def gradients(model: Any, documents: list[np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Of the mean loss over all tokens but the first of each document, by the names on disk.

    The model's weights become their gradients, so that `transformers` itself names them.
    """
    losses = []
    for document in documents:
        targets = torch.from_numpy(document[1:]).long()
        of_document = logits(model, document)[:-1]
        losses.append(torch.nn.functional.cross_entropy(of_document, targets, reduction="none"))
    model.zero_grad()
    torch.cat(losses).mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            grad = parameter.grad
            parameter.copy_(torch.zeros_like(parameter) if grad is None else grad)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):  # has none: it only chooses
                buffer.zero_()
    model.save_pretrained(folder)
    return load_file(folder / FILE)
