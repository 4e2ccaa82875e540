"""Distillation beside its formula written out in PyTorch, from models of `transformers`."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from model import parameters
from model.families import FAMILIES
from sharding import means as computing
from tests.families import config_of, documents, to_params
from tests.parity import theirs
from tests.parity.test_families import batch
from tests.training.sharded import mesh_of
from training.objectives.config import Divergence, ObjectiveConfig
from training.objectives.objective import objective
from training.state import Fixed
from training.step import gradients

FAMILY, TEMPERATURE, MIX, WEIGHT = "qwen3", 2.0, 0.3, 0.2
BOUND = 1e-4


def away(divergence: str, log_p: Any, log_q: Any) -> Any:
    """PyTorch's kl_div(input, target) is KL(target | input), of logarithms."""

    def kl(a: Any, b: Any) -> Any:
        return functional.kl_div(b, a, reduction="none", log_target=True).sum(-1)

    if divergence == "forward_kl":
        return kl(log_p, log_q)
    if divergence == "reverse_kl":
        return kl(log_q, log_p)
    log_m = torch.log(WEIGHT * log_p.exp() + (1 - WEIGHT) * log_q.exp())
    return WEIGHT * kl(log_p, log_m) + (1 - WEIGHT) * kl(log_q, log_m)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Any]:
    folders = [tmp_path_factory.mktemp(name) for name in ("student", "teacher")]
    for seed, folder in enumerate(folders, 1):
        theirs.save(FAMILY, folder, seed=seed)
    return folders, config_of(json.loads((folders[0] / "config.json").read_text()))[1]


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_loss_and_gradients(
    both: Any, divergence: Divergence, tmp_path: Path, record_property: Any
) -> None:
    folders, config = both
    student, teacher = (theirs.load(FAMILY, folder) for folder in folders)
    terms = []
    for document in documents():
        targets = torch.from_numpy(document[1:]).long()
        s = theirs.logits(student, document)[:-1]
        with torch.no_grad():
            t = theirs.logits(teacher, document)[:-1]
        log_q, log_p = (functional.log_softmax(x / TEMPERATURE, -1) for x in (s, t))
        text = functional.cross_entropy(s, targets, reduction="none")
        terms.append(torch.stack([text, TEMPERATURE**2 * away(divergence, log_p, log_q)]))
    text, distill = torch.cat(terms, dim=1).mean(dim=1)
    (MIX * text + (1 - MIX) * distill).backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.copy_(parameter.grad)
    student.save_pretrained(tmp_path)

    trees = [
        to_params(FAMILIES[FAMILY], config, load_file(folder / theirs.FILE))
        for folder in (*folders, tmp_path)
    ]
    outline = parameters.outline(config, computing.means(mesh_of(), config))
    how = ObjectiveConfig(
        "distill",
        teacher="x",
        divergence=divergence,
        jsd_weight=WEIGHT,
        temperature=TEMPERATURE,
        mix=MIX,
    )
    asked = objective(how, teacher=outline)

    @jax.jit
    def run(params: Any, teacher: Any, rows: Any) -> Any:
        return gradients(outline, params, rows, 1, 0.0, mesh_of(), Fixed(teacher=teacher), asked)

    grads, sums = jax.device_get(run(trees[0], trees[1], batch()))
    numbers = {"loss": text.item(), "distill_loss": distill.item()}
    differences = [abs(sums[key] / sums["tokens"] / value - 1) for key, value in numbers.items()]
    largest = max(
        float(np.abs(ours - other).max() / np.abs(other).max())
        for ours, other in zip(jax.tree.leaves(grads), jax.tree.leaves(trees[2]), strict=True)
    )
    record_property("numbers", float(max(differences)))
    record_property("gradients", float(largest))
    assert max(differences) < BOUND and largest < BOUND
