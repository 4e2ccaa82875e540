"""What a matrix product is computed in: float32 means float32, on every hardware."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evaluation.perplexity import make_scorer
from model import parameters
from model.config import ModelConfig
from model.generation import Generator, Sampling
from sharding.means import means
from tests.jaxprs import equations
from tests.model.conftest import small_config
from tests.training.sharded import LENGTH, OPTIMIZER, ROWS, mesh_of, placed
from training.config import TrainConfig
from training.optimizer import make_optimizer
from training.schedule import learning_rate
from training.state import NOTHING, abstract_params, abstract_state, shardings_of
from training.step import make_step

PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")
HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


def precisions(jaxpr: Any) -> list[Any]:
    """Of every matrix product."""
    return [e.params["precision"] for e in equations(jaxpr, *PRODUCTS)]


def training(model: ModelConfig) -> Any:
    train = TrainConfig(steps=2, batch_size=ROWS, accumulation=2, z_loss=1e-3)
    mesh = mesh_of()
    outline = parameters.outline(model, means(mesh, model))
    tx, schedule = make_optimizer(OPTIMIZER, 2, outline, mesh), learning_rate(OPTIMIZER, 2)
    abstract = abstract_state(tx, outline, mesh)
    step = make_step(outline, tx, schedule, train, mesh, abstract)
    return jax.make_jaxpr(step)(abstract, NOTHING, placed(mesh, 0))


def evaluation(model: ModelConfig) -> Any:
    mesh, outline = mesh_of(), parameters.outline(model)
    abstract = abstract_params(outline, mesh)
    score = make_scorer(outline, mesh, shardings_of(abstract))
    return jax.make_jaxpr(score)(abstract, placed(mesh, 0))


def generation(model: ModelConfig) -> Any:
    outline = parameters.outline(model)
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), parameters.shapes(outline))
    generator = Generator(outline, params, Sampling(), platform="gpu")
    cache = generator._empty(1, LENGTH)
    tokens = np.ones((1, 4), np.int32)

    def one_more(params: Any, cache: Any) -> Any:
        _, cache, rows = generator._feed(params, cache, tokens, np.zeros(1, np.int32))
        return generator._go_on(params, cache, rows)

    return jax.make_jaxpr(one_more)(generator._params, cache)


@pytest.mark.parametrize(
    ("kind", "remat"), [("llama", "none"), ("gpt2", "none"), ("gemma", "none"), ("gemma", "full")]
)
def test_training(kind, remat):
    check(training, kind, remat=remat, weights=3)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma"])
@pytest.mark.parametrize("function", [evaluation, generation])
def test_evaluation_and_generation(kind, function):
    check(function, kind, weights=1)


def check(function: Any, kind: str, weights: int, **options: Any) -> None:
    """With all products found: each weight's, a number of times, and the two of attention."""
    config = small_config(kind, vocab_size=120, **options)
    found = precisions(function(config))
    each = 4 + 2 + (3 if config.mlp == "swiglu" else 2) + 1
    assert len(found) >= weights * each
    assert set(found) == {HIGHEST}
    half = precisions(function(small_config(kind, vocab_size=120, dtype="bfloat16", **options)))
    assert len(half) == len(found)
    assert HIGHEST not in half


@pytest.mark.parametrize("function", [training, evaluation, generation])
def test_experts(function: Any) -> None:
    """Of bfloat16 models the routers alone are computed in float32."""

    def found(dtype: Any) -> list[Any]:
        return precisions(function(small_config("deepseek", vocab_size=120, dtype=dtype)))

    full, half = found("float32"), found("bfloat16")
    assert set(full) == {HIGHEST}
    assert len(half) == len(full)  # the others are those of bfloat16, however it is said
    # One stack has a router; to generate there are two programs.
    assert half.count(HIGHEST) == {training: 3, evaluation: 1, generation: 2}[function]


def test_a_float32_product_is_not_what_accelerators_do_by_default():
    """That the above can fail."""
    plain = jax.make_jaxpr(lambda x: x @ x)(jnp.ones((2, 2)))
    assert precisions(plain) == [None]
