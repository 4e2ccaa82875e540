"""The perplexity of a split depends neither on the mesh nor on the batch size."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from data import building
from data.store import TokenStore
from data.tokenizer import ByteTokenizer
from data.windows import Windows
from evaluation.perplexity import evaluate, make_scorer
from model import parameters
from model.config import ModelConfig
from sharding.means import means
from tests.data.shards import Texts
from tests.training.sharded import mesh_of
from training.state import abstract_params, shardings_of

MODEL = ModelConfig(
    vocab_size=258,
    num_layers=2,
    embed_dim=32,
    num_heads=8,
    num_kv_heads=8,
    head_dim=4,
    mlp_dim=64,
    max_length=32,
    init_std=0.3,
)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    texts = [f"document né {i} " * (1 + i % 7) for i in range(23)]
    path = tmp_path_factory.mktemp("s") / "s"
    return building.build(path, [Texts(texts)], ByteTokenizer(), {})


def measure(
    split: TokenStore, sizes: tuple[int, int, int], rows: int, **others: int
) -> dict[str, Any]:
    mesh = mesh_of(*sizes, **others)
    outline = parameters.outline(MODEL, means(mesh, MODEL))
    where = shardings_of(abstract_params(outline, mesh))
    params = jax.jit(lambda: parameters.initialize(MODEL, 0), out_shardings=where)()
    seen: list[tuple[int, int]] = []
    score = make_scorer(outline, mesh, where)
    windows = Windows(split, 32, rows, 16)
    result = evaluate(score, params, windows, mesh, lambda *at: seen.append(at))
    assert seen == [(i + 1, windows.n_batches) for i in range(windows.n_batches)]
    return result


def test_all_tokens_and_bytes_are_counted(split):
    result = measure(split, (1, 1, 1), 8)
    assert result["tokens"] == split.n_tokens - split.n_documents
    assert result["bytes"] == split.n_bytes
    assert result["perplexity"] == pytest.approx(math.exp(result["loss"]))
    nats = result["loss"] * result["tokens"]
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / result["bytes"])


@pytest.mark.parametrize(
    ("sizes", "rows"), [((1, 1, 1), 5), ((8, 1, 1), 8), ((1, 8, 1), 16), ((2, 2, 2), 8)]
)
def test_same_on_any_mesh_and_batch_size(split, sizes, rows):
    one, other = measure(split, (1, 1, 1), 8), measure(split, sizes, rows)
    assert other == pytest.approx(one, rel=1e-6)
    assert np.isfinite(other["loss"])


@pytest.mark.slow
def test_same_along_context(split):
    one, other = measure(split, (1, 1, 1), 8), measure(split, (1, 2, 1), 8, context=4)
    assert other == pytest.approx(one, rel=1e-6)
