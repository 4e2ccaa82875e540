"""Low-rank adapters beside weights, against formulas that are written out."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import adapters, parameters
from model.adapter_config import AdapterConfig
from model.config import PRODUCTS, ModelConfig
from model.latent_config import LatentConfig
from model.moe_config import MoeConfig
from tests.model.conftest import small_config
from training.fields import flat

SOME = ("query", "out", "down")
ROWS, LENGTH = 2, 12


def config_of(kind: Any, targets: tuple[str, ...] = PRODUCTS, **changes: Any) -> ModelConfig:
    adapter = AdapterConfig(kind, rank=3, alpha=7.0, targets=targets)
    return small_config(adapter=adapter, **changes)


def drawn(config: ModelConfig, seed: int = 0) -> Any:
    """Parameters with noise everywhere, also where fresh ones are zero."""
    shapes = parameters.shapes(parameters.outline(config))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * random.standard_normal(leaf.shape), jnp.float32), shapes
    )


def logits(config: ModelConfig, params: Any) -> jax.Array:
    tokens = jax.random.randint(jax.random.key(1), (ROWS, LENGTH), 0, config.vocab_size)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), tokens.shape)
    model = parameters.bind(parameters.outline(config), params)
    return model(tokens, positions, jnp.ones_like(tokens))[..., : config.vocab_size]


def composed(config: ModelConfig, params: Any) -> Any:
    """Plain weights of adapted ones by the formulas of the papers, weight by weight.

    The length of DoRA's columns is a constant to the gradient.
    """
    adapter = config.adapter

    def one(w: Any, a: Any, b: Any, magnitude: Any) -> Any:
        outputs = b.shape[1:]
        whole = w.reshape(-1, math.prod(outputs)) + (adapter.alpha / adapter.rank) * (
            a.reshape(-1, adapter.rank) @ b.reshape(adapter.rank, -1)
        )
        if magnitude is not None:
            lengths = jnp.sqrt(jnp.sum(whole * whole, axis=0))
            whole = whole / jax.lax.stop_gradient(lengths) * magnitude.reshape(-1)
        return whole.reshape(w.shape)

    flat_params = flat(params)
    made = {}
    for path, w in flat_params.items():
        if "_adapter." in path:
            continue
        if f"{path}_adapter.a" in flat_params:
            a, b = (flat_params[f"{path}_adapter.{name}"] for name in "ab")
            magnitude = flat_params.get(f"{path}_adapter.magnitude")
            layers = [
                one(w[i], a[i], b[i], None if magnitude is None else magnitude[i])
                for i in range(w.shape[0])
            ]
            w = jnp.stack(layers)
        made[path] = w
    tree: Any = {}
    for path, value in made.items():
        *outer, last = path.split(".")
        inner = tree
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return tree


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("lora", PRODUCTS),
        ("dora", SOME),
        pytest.param("lora", SOME, marks=pytest.mark.slow),
        pytest.param("dora", PRODUCTS, marks=pytest.mark.slow),
    ],
    ids=["lora-all", "dora-some", "lora-some", "dora-all"],
)
def test_logits_and_gradients_are_those_of_the_formula(kind, targets):
    config = config_of(kind, targets)
    params = drawn(config)

    def adapted(params: Any) -> Any:
        return jnp.sum(jnp.sin(logits(config, params)))

    def written_out(params: Any) -> Any:
        plain = logits(config.plain, composed(config, params))
        return jnp.sum(jnp.sin(plain))

    with jax.default_matmul_precision("highest"):
        found, expected = (jax.jit(jax.value_and_grad(f))(params) for f in (adapted, written_out))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4)
    plain = jax.jit(lambda p: logits(config.plain, parameters.without_adapters(p)))(params)
    assert np.abs(plain - jax.jit(lambda p: logits(config, p))(params)).max() > 0.1
    for path, expected_grad in flat(expected[1]).items():
        if "_adapter." in path:  # the others' are asked for by nobody
            largest = np.abs(expected_grad).max()
            assert largest > 1e-3, path
            np.testing.assert_allclose(
                flat(found[1])[path], expected_grad, atol=2e-4 * largest, err_msg=path
            )


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_merged_weights_are_those_of_the_formula(kind):
    config = config_of(kind)
    params = drawn(config)
    found, expected = (flat(f(config, params)) for f in (adapters.merged, composed))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("lora", {}),
        ("lora", {"mlp": "gelu", "bias": True, "dtype": "bfloat16"}),
        ("dora", {}),
        ("dora", {"dtype": "bfloat16"}),
    ],
)
def test_fresh_adapters_change_nothing(kind, changes):
    targets = tuple(name for name in PRODUCTS if name != "gate" or not changes.get("mlp"))
    config = config_of(kind, targets, **changes)
    base = drawn(config.plain)
    fresh = parameters.initialize(config, 5)
    beside = parameters.part(fresh, [path for path in flat(fresh) if "_adapter." in path])
    params = adapters.begun(config, parameters.joined(beside, base))
    before, after = logits(config.plain, base), logits(config, params)
    atol = 0 if kind == "lora" else 1e-5  # a length over itself is 1 but for its last bit
    if kind == "dora" and changes:
        atol = 0.02
    np.testing.assert_allclose(after, before, rtol=0, atol=atol)
    found = flat(params)
    for path, value in found.items():
        if path.endswith("_adapter.a"):
            inputs = math.prod(value.shape[1:-1])
            assert 0.8 < np.std(value) * math.sqrt(3 * inputs) < 1.2
        if path.endswith("_adapter.b"):
            assert not value.any()


@pytest.mark.slow
def test_products_are_kept_with_what_lies_beside_them():
    """What the backward pass keeps by name is the adapted product; the gradient stays the same."""
    params = drawn(config_of("lora"))

    def gradient(**changes: Any) -> Any:
        config = config_of("lora", **changes)
        return jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(logits(config, p)))))(params)

    plain = gradient()
    for remat in ("full", "save_dots"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4),
            gradient(remat=remat),
            plain,
        )


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("targets", [PRODUCTS, SOME], ids=["all", "some"])
def test_parameters_are_counted(kind, targets):
    config = config_of(kind, targets)
    shapes = jax.tree.leaves(parameters.shapes(parameters.outline(config)))
    assert config.num_params() == sum(math.prod(leaf.shape) for leaf in shapes)
    # Four operations a frozen weight, six a trained one.
    plain = config.plain
    weights = config.num_layers * (plain._attention_weights + plain._mlp_weights(plain.mlp_dim))
    weights += plain.padded_vocab_size * plain.embed_dim
    own = flat(parameters.shapes(parameters.outline(config)))
    beside = sum(
        math.prod(leaf.shape) for path, leaf in own.items() if path.endswith(("adapter.a", "er.b"))
    )
    more = config.flops_per_token(16) - plain.flops_per_token(16)
    assert more == 6 * beside - 2 * weights


@pytest.mark.parametrize(
    ("adapter", "changes", "says"),
    [
        (dict(targets=("queries",)), {}, r"adapter.targets=\['queries'\]: choose of query, key"),
        (dict(targets=()), {}, "adapter.kind='lora' needs some"),
        (dict(targets=("gate",)), dict(mlp="gelu"), "gate can have no adapter here"),
        (dict(targets=("up",), rank=0), {}, "rank=0: must be at least 1"),
        (dict(targets=("up",), alpha=0.0), {}, "alpha=0.0: must be positive"),
        (
            dict(targets=("query", "up")),
            dict(moe=MoeConfig(num_experts=4, experts_per_token=2, expert_mlp_dim=8)),
            "up can have no adapter here, for latent attention and experts have none",
        ),
        (
            dict(targets=("query", "up")),
            dict(latent=LatentConfig(kv_rank=8, rope_dim=2, value_dim=4), num_kv_heads=4),
            "query can have no adapter here",
        ),
    ],
)
def test_what_cannot_be(adapter, changes, says):
    with pytest.raises(ValueError, match=says):
        small_config(adapter=AdapterConfig("lora", **adapter), **changes)


def test_without_adapters_is_another_config():
    config = config_of("dora")
    assert config.plain == small_config()
    assert dataclasses.replace(config.plain, adapter=config.adapter) == config
