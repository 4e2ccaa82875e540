"""Mixtures of experts on one device, against every expert computed on every token."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from model import grouped, moe, parameters
from model.config import ModelConfig
from model.kernels import megablox
from model.layers import ExpertWeights
from model.mlp import ACTIVATIONS
from model.moe_config import MoeConfig
from tests.jaxprs import equations
from tests.model.conftest import SMALL, lively, small_config
from tests.model.reference import reference_routing

E, A, D, F, B, T = 6, 3, 8, 12, 2, 10


def case(how: str, gate: bool = True) -> tuple[jax.Array, jax.Array, jax.Array, ExpertWeights]:
    """Tokens, their experts and weights, and the weights of experts."""
    rng = np.random.default_rng(0)
    ids = np.argsort(rng.random((B, T, E)), axis=-1)[..., :A]
    if how == "all to the same":
        ids[:] = [2, 4, 5]
    if how == "with padding":
        ids[0, 4:] = ids[1, ::3] = E
    if how == "nothing":
        ids[:] = E
    shapes = (E, D, F), (E, D, F), (E, D, F)
    up, gates, down = (jnp.asarray(0.3 * rng.normal(size=s), jnp.float32) for s in shapes)
    return (
        jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32),
        jnp.asarray(ids, jnp.int32),
        jnp.asarray(rng.random((B, T, A)), jnp.float32),
        ExpertWeights(up, gates if gate else None, down),
    )


HOW = ["anyhow", "all to the same", "with padding", "nothing"]


def every_expert_on_every_token(x: Any, ids: Any, weights: Any, of: ExpertWeights) -> jax.Array:
    up = jnp.einsum("btd,edf->ebtf", x, of.up_EDF)
    if of.gate_EDF is None:
        hidden = jax.nn.gelu(up, approximate=True)
    else:
        hidden = jax.nn.silu(jnp.einsum("btd,edf->ebtf", x, of.gate_EDF)) * up
    each = jnp.einsum("ebtf,edf->ebtd", hidden, of.down_EDF)
    mine = jnp.sum(jax.nn.one_hot(ids, E) * weights[..., None], axis=2)
    return jnp.einsum("bte,ebtd->btd", mine, each)


def slopes(function: Any, x: Any, ids: Any, weights: Any, of: ExpertWeights) -> Any:
    def total(x: Any, weights: Any, of: Any) -> jax.Array:
        return jnp.sum(jnp.sin(function(x, ids, weights, of)))

    return jax.jit(jax.value_and_grad(total, (0, 1, 2)))(x, weights, of)


def compare(found: Any, expected: Any, part: float = 2e-6) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=part * float(np.abs(b).max() + 1))


@pytest.mark.parametrize("gate", [True, False], ids=["swiglu", "gelu"])
@pytest.mark.parametrize("how", HOW)
def test_values_and_gradients(how: str, gate: bool) -> None:
    given = case(how, gate)
    with jax.default_matmul_precision("highest"):
        found = slopes(
            moe.on_one(grouped.ragged, ACTIVATIONS["swiglu" if gate else "gelu"]), *given
        )
        expected = slopes(every_expert_on_every_token, *given)
    compare(found, expected)
    if how == "nothing":
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(found))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 5), st.booleans())
def test_the_highest_are_those_of_top_k(seed: int, count: int, ties: bool) -> None:
    x = np.random.default_rng(seed).normal(size=(3, 5)).astype(np.float32)
    x = np.round(x) + 0.0 if ties else x  # a minus zero would be no tie
    np.testing.assert_array_equal(moe.highest(jnp.asarray(x), count), jax.lax.top_k(x, count)[1])


@pytest.mark.parametrize("kind", ["mixtral", "deepseek"])
def test_the_router_says_what_it_did(kind: str) -> None:
    """As NumPy's routers do, without the padding."""
    config = small_config(kind)
    params = nnx.to_pure_dict(nnx.state(lively(config), nnx.Param))
    outline = parameters.outline(config)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 61, (2, 12), dtype=np.int32)
    segments = np.ones((2, 12), np.int32)
    segments[1, 7:] = 0
    positions = np.tile(np.arange(12, dtype=np.int32), (2, 1))
    rows: Any = (tokens, positions, segments)
    routing = jax.jit(lambda p: parameters.bind(outline, p).features(*rows).routing)(params)
    params = jax.tree.map(np.asarray, params)
    layers = config.num_layers - config.moe.first_dense
    assert routing.chosen_BE.shape == (layers, 2, config.moe.num_experts)
    for row in range(2):
        want = reference_routing(config, params, tokens[row], positions[row], segments[row])
        for found, expected in zip(routing, want, strict=True):
            np.testing.assert_allclose(found[:, row], expected, rtol=2e-4, atol=2e-4)
    each = config.moe.experts_per_token
    np.testing.assert_array_equal(routing.chosen_BE.sum(-1), [[12 * each, 7 * each]] * layers)


@pytest.mark.parametrize("remat", ["full", "save_dots", "save_attention"])
def test_the_backward_pass_does_not_choose_again(remat: str) -> None:
    config = small_config("deepseek", remat=remat)
    outline = parameters.outline(config)
    rows = jnp.ones((1, 8), jnp.int32)

    def loss(params: Any) -> jax.Array:
        return jnp.sum(parameters.bind(outline, params).features(rows, rows, rows).x_BTD)

    jaxpr = jax.make_jaxpr(jax.grad(loss))(parameters.shapes(outline))
    assert len(list(equations(jaxpr, "argmax"))) == config.moe.experts_per_token


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (dict(num_experts=-1), "num_experts=-1: must be at least 0"),
        (dict(num_experts=4, experts_per_token=5), "experts_per_token=5 is more than num_experts"),
        (dict(num_experts=4, experts_per_token=0), "experts_per_token=0: must be at least 1"),
        (dict(num_experts=4, experts_per_token=1), "the router learns nothing"),
        (dict(balance_weight=-0.1), "balance_weight=-0.1: must not be negative"),
        (dict(bias_rate=0.0), "bias_rate=0.0: must be positive"),
    ],
)
def test_impossible_experts(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MoeConfig(**values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (dict(quantization="int8"), "quantization='int8': products with experts cannot"),
        (dict(moe=MoeConfig(4, first_dense=3)), "leaves no layer of num_layers=3 to experts"),
        (dict(moe=MoeConfig(4, first_dense=1), scan_unroll=3), "num_layers - moe.first_dense=2"),
    ],
)
def test_what_does_not_go_with_experts(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModelConfig(**SMALL | {"moe": MoeConfig(4)} | values)


def test_flops_are_of_the_experts_that_a_token_goes_through() -> None:
    config = small_config("deepseek")
    more = dataclasses.replace(config, moe=dataclasses.replace(config.moe, num_experts=80))
    assert more.num_params() > 5 * config.num_params()
    router = 6 * 2 * 32 * 72  # two layers have 72 more columns
    assert more.flops_per_token(8) - config.flops_per_token(8) == router
    dense = dataclasses.replace(config, moe=MoeConfig(), mlp_dim=16 * (3 + 2))
    first, others = 6 * 2 * 32 * (48 - 80), 6 * 2 * 32 * 8
    assert config.flops_per_token(8) - dense.flops_per_token(8) == first + others


@pytest.mark.parametrize(
    "sizes", [(300, 0, 72, 12), (0, 0, 0, 0), (0, 128, 128, 0), (0, 0, 0, 384)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_megablox_multiplies_as_xla_does(sizes: tuple[int, ...], transposed: bool) -> None:
    """Forward and backward, with groups that are empty, and rows that belong to none."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(391, 160)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(4, 160, 200)), jnp.float32)
    of = jnp.asarray(sizes, jnp.int32)

    def found(function: Any) -> Any:
        def total(x: Any, w: Any) -> Any:
            y = function(x, w.swapaxes(1, 2) if transposed else w, of, transposed)
            return jnp.sum(jnp.sin(y)), y

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(x, w)

    def by_megablox(*given: Any) -> jax.Array:
        return megablox.grouped(*given, interpret=True)

    assert found(grouped.ragged)[0][1].shape == (391, 200)
    compare(found(by_megablox), found(grouped.ragged), 1e-5)
    assert not np.asarray(found(by_megablox)[0][1][sum(sizes) :]).any()


@pytest.mark.parametrize(
    ("rows", "experts", "inner", "outer"),
    [(16384, 8, 4096, 14336), (24576, 64, 2048, 1408), (2048, 1, 14336, 4096), (256, 8, 96, 80)],
)
def test_tiles_fit_and_read_little(rows: int, experts: int, inner: int, outer: int) -> None:
    """What a kernel holds of VMEM, written out: two of each tile, and sums in float32."""
    product = megablox._of_product(rows, inner, outer, experts)
    gradient = megablox._of_gradient(rows, inner, outer, experts)
    for tiles, sums in ((product, product.rows), (gradient, gradient.inner)):
        m, k, n = tiles
        assert 4 * (m * k + k * n + m * n) + 4 * sums * n <= 14 << 20
        assert rows % m == 0 and m in (128, 256, 512)
        assert all(part == size or part % 128 == 0 for part, size in ((k, inner), (n, outer)))
    # Not much more than one reading of each matrix, and of each row once for every tile of columns.
    wide = -(-outer // product.outer)
    assert product.inner == inner or inner > 8192, "else each matrix is read for every tile of rows"
    assert wide <= -(-outer // 512)


@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
@pytest.mark.parametrize(
    ("rows", "experts", "inner", "outer"),
    [(8192, 8, 4096, 14336), (24576, 64, 2048, 1408), (24576, 64, 1408, 2048), (200, 8, 96, 80)],
)
def test_megablox_compiles_for_tpus(
    rows: int, experts: int, inner: int, outer: int, topology: str, monkeypatch: Any
) -> None:
    """Forward and backward, by the compiler of TPUs: a row is multiplied with one expert alone."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    from jax.experimental import topologies

    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    one = jax.sharding.SingleDeviceSharding(devices[0])

    def total(x: Any, w: Any, sizes: Any) -> Any:
        y = megablox.grouped(megablox.grouped(x, w, sizes), w, sizes, True)  # there and back
        return jnp.sum(y.astype(jnp.float32))

    given = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=one)
        for shape, dtype in (
            ((rows, inner), jnp.bfloat16),
            ((experts, inner, outer), jnp.bfloat16),
            ((experts,), jnp.int32),
        )
    ]
    compiled = jax.jit(jax.grad(total, (0, 1)), out_shardings=one).lower(*given).compile()
    cost: Any = compiled.cost_analysis()
    # One forward, the result of the other is not needed; and two backward of each.
    assert cost["flops"] < 1.1 * 5 * 2 * (rows + 128) * inner * outer
    assert str(compiled.as_text()).count('custom_call_target="tpu_custom_call"') >= 5
