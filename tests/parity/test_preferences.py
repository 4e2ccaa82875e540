"""DPO and IPO beside `trl`: its trainer's own rows, losses and gradients, in float32."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import jax
import numpy as np
import pytest
import tokenizers
import torch
import transformers
import trl
from safetensors.numpy import load_file

from model import parameters
from model.families import FAMILIES
from sharding import means as computing
from tests.families import VOCABULARY, config_of, to_params
from tests.parity import theirs
from tests.training.sharded import mesh_of
from training.objectives.config import ObjectiveConfig
from training.objectives.objective import objective
from training.state import Fixed
from training.step import gradients

FAMILY, BETA, ROWS, LENGTH = "llama", 0.3, 8, 48
LOSS_TYPES = {"dpo": "sigmoid", "ipo": "ipo"}
BOUND = 1e-4
"""Relative for numbers; of gradients of the largest number in that of a parameter."""


class Theirs(NamedTuple):
    """Attributes:
    examples: the rows as `trl` made them: prompt_ids, chosen_ids, rejected_ids.
    numbers: its loss and metrics over all of them.
    gradients: of the loss, as our parameters.
    params, reference: as ours.
    """

    examples: list[dict[str, list[int]]]
    numbers: dict[str, float]
    gradients: Any
    params: Any
    reference: Any
    config: Any


def pairs() -> datasets.Dataset:
    """Unequally long prompts and answers, of words that are a token each."""
    rng = np.random.default_rng(0)

    def words(least: int, most: int) -> str:
        ids = rng.integers(3, VOCABULARY, rng.integers(least, most))
        return "".join(f" w{i}" for i in ids)

    rows = [
        {"prompt": words(2, 9), "chosen": words(1, 9), "rejected": words(1, 9)}
        for _ in range(ROWS * 2 - 3)
    ]
    return datasets.Dataset.from_list(rows)


def word_tokenizer() -> Any:
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module", params=sorted(LOSS_TYPES))
def by_trl(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Theirs]:
    folders = [tmp_path_factory.mktemp(name) for name in ("policy", "reference", "trl")]
    _, config, _ = config_of(_saved(folders[0], 1))
    _saved(folders[1], 2)
    model, reference = (theirs.load(FAMILY, folder) for folder in folders[:2])
    args = trl.DPOConfig(
        output_dir=str(folders[2]),
        beta=BETA,
        loss_type=LOSS_TYPES[request.param],
        per_device_train_batch_size=2 * ROWS,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        disable_dropout=True,
    )
    trainer = trl.DPOTrainer(
        model, reference, args, train_dataset=pairs(), processing_class=word_tokenizer()
    )
    examples = [dict(row) for row in trainer.train_dataset]
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(examples))
    trainer.model.zero_grad()
    loss.backward()
    logged = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.copy_(
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
    trainer.model.save_pretrained(folders[2])
    family = FAMILIES[FAMILY]
    of_files = [load_file(folder / theirs.FILE) for folder in (folders[2], *folders[:2])]
    grads, params, other = (to_params(family, config, tensors) for tensors in of_files)
    found = Theirs(examples, {**logged, "loss": loss.item()}, grads, params, other, config)
    return request.param, found


def _saved(folder: Path, seed: int) -> dict[str, Any]:
    theirs.save(FAMILY, folder, seed=seed)
    described: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return described


def packed(examples: list[dict[str, list[int]]]) -> dict[str, np.ndarray]:
    """The pairs of `trl` in our rows, as many as fit into each."""
    shape = (ROWS, LENGTH)
    names = ("tokens", "targets", "segments", "positions", "bytes")
    batch: dict[str, np.ndarray] = {name: np.zeros(shape, np.int32) for name in names}
    batch["weights"] = np.zeros(shape, np.float32)
    row = at = segment = 0
    for example in examples:
        answers = [
            example["prompt_ids"] + example[f"{which}_ids"] for which in ("chosen", "rejected")
        ]
        if at + sum(len(ids) - 1 for ids in answers) > LENGTH:
            row, at, segment = row + 1, 0, 0
        for ids in answers:
            n, prompt = len(ids) - 1, len(example["prompt_ids"])
            here = slice(at, at + n)
            segment += 1
            batch["tokens"][row, here], batch["targets"][row, here] = ids[:-1], ids[1:]
            batch["segments"][row, here], batch["positions"][row, here] = segment, np.arange(n)
            batch["weights"][row, at + prompt - 1 : at + n] = 1
            at += n
    assert 2 <= row < ROWS  # several pairs share a row
    return batch


def test_losses_and_gradients(by_trl: tuple[str, Theirs], record_property: Any) -> None:
    name, found = by_trl
    mesh = mesh_of()
    outline = parameters.outline(found.config, computing.means(mesh, found.config))
    how = ObjectiveConfig(name, teacher="x", beta=BETA)  # type: ignore[arg-type]
    asked = objective(how, teacher=outline)
    rows = packed(found.examples)

    @jax.jit
    def run(params: Any, reference: Any, rows: Any) -> Any:
        fixed = Fixed(teacher=reference)
        return gradients(outline, params, rows, 1, 0.0, mesh, fixed, asked)

    grads, sums = jax.device_get(run(found.params, found.reference, rows))
    pairs = sums["pairs"]
    assert pairs == len(found.examples)
    numbers = {
        "loss": sums["preference_loss"] / pairs,
        "logps/chosen": sums["log_prob_chosen"] / pairs,
        "logps/rejected": sums["log_prob_rejected"] / pairs,
    }
    if name == "dpo":  # its rewards for IPO are those of DPO
        numbers["rewards/margins"] = sums["margin"] / pairs
        numbers["rewards/accuracies"] = sums["accuracy"] / pairs
    differences = [abs(ours / found.numbers[key] - 1) for key, ours in numbers.items()]
    largest = 0.0
    for ours, other in zip(jax.tree.leaves(grads), jax.tree.leaves(found.gradients), strict=True):
        largest = max(largest, float(np.abs(ours - other).max() / np.abs(other).max()))
    record_property("numbers", float(max(differences)))
    record_property("gradients", float(largest))
    assert max(differences) < BOUND and largest < BOUND
