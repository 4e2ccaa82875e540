"""The loss of examples, and its gradients, know nothing of how they were packed or accumulated."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from data import building, plan, rows
from data.examples.rendering import Making
from data.tokenizer import ByteTokenizer
from sharding.placement import place_rows
from tests.data.shards import Records
from tests.training.sharded import MODEL, Run, begin, mesh_of
from training.fields import flat
from training.step import gradients

LENGTH, ROWS = 96, 8
QUESTIONS = [("1 + 1" * (i % 4), "so " * (1 + i % 5)) for i in range(24)]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> rows.Batch:
    """All examples in few rows, the last of them empty."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PODIUM_CACHE", str(folder / "cache"))
        records = [{"question": q, "answer": a} for q, a in QUESTIONS]
        making = Making("gsm8k", LENGTH)
        made = building.build(
            folder / "store", [Records(records)], ByteTokenizer(), {}, making=making
        )
        planned = plan.make(made, LENGTH, "best_fit")
        pieces = planned.pieces(np.arange(planned.n_bins) * LENGTH, LENGTH)
        count = -(-planned.n_bins // ROWS) * ROWS
        batch = rows.empty(count, LENGTH)
        rows.fill(batch, np.arange(planned.n_bins), pieces, made)
    assert planned.n_bins < len(QUESTIONS)
    return batch


def alone() -> rows.Batch:
    """Each example in a row of its own, as the definition says it."""
    batch = rows.empty(len(QUESTIONS), LENGTH)
    for row, (q, a) in enumerate(QUESTIONS):
        prompt, answer = f"Question: {q}\nAnswer:".encode(), f" {a}".encode()
        ids = [ByteTokenizer.bos_id, *prompt, *answer, ByteTokenizer.eos_id]
        n = len(ids) - 1
        batch["tokens"][row, :n], batch["targets"][row, :n] = ids[:-1], ids[1:]
        batch["segments"][row, :n], batch["positions"][row, :n] = 1, np.arange(n)
        batch["weights"][row, len(prompt) : n] = 1
        batch["bytes"][row, len(prompt) : n - 1] = 1
    return batch


@functools.cache
def started() -> Run:
    model = dataclasses.replace(MODEL, vocab_size=258, max_length=LENGTH, num_layers=1)
    return begin(mesh_of(), model)


def computed(batch: rows.Batch, accumulation: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gradients of the mean loss, and the sums behind it."""
    run, mesh = started(), started().mesh
    size = len(batch["tokens"])
    placed = place_rows(mesh, size, lambda some: {k: v[some] for k, v in batch.items()})
    made = jax.jit(
        lambda params, some: gradients(run.outline, params, some, accumulation, 0.0, mesh)
    )
    grads, sums = jax.device_get(made(run.state.params, placed))
    return flat(grads), sums


def assert_close(one: dict[str, Any], other: dict[str, Any], within: float) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        scale = np.abs(x).max()
        np.testing.assert_allclose(other[name], x, rtol=0, atol=within * scale, err_msg=name)


def test_packed_is_one_by_one(packed: rows.Batch) -> None:
    grads, sums = computed(packed)
    expected, of_each = computed(alone())
    learned = sum(len(a) + 2 for _, a in QUESTIONS)
    assert sums["tokens"] == of_each["tokens"] == learned
    assert sums["bytes"] == of_each["bytes"] == learned - len(QUESTIONS)
    assert sums["loss"] == pytest.approx(of_each["loss"], rel=1e-6)
    assert_close(expected, grads, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_changes_nothing(packed: rows.Batch, accumulation: int) -> None:
    """However unequally what is learned falls on the microbatches."""
    of_rows = packed["weights"].sum(axis=1)
    shares = {of_rows[i::accumulation].sum() for i in range(accumulation)}
    assert len(shares) > 1
    grads, sums = computed(packed)
    again, of_some = computed(packed, accumulation)
    assert sums["loss"] == pytest.approx(of_some["loss"], rel=1e-6)
    assert_close(grads, again, 1e-6)
