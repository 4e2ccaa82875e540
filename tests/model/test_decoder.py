"""The decoder: against NumPy, and the promises of causality and isolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model import parameters
from model.layers import rotate
from tests.jaxprs import equations
from tests.model.conftest import lively, runner, small_config
from tests.model.reference import reference_logits


def row(*lengths, seed=0, total=24):
    """One packed row: tokens, positions, segments; the rest of the row is padding."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 61, (1, total), dtype=np.int32)
    positions, segments = np.zeros((2, 1, total), np.int32)
    at = 0
    for number, length in enumerate(lengths, start=1):
        positions[0, at : at + length] = np.arange(length)
        segments[0, at : at + length] = number
        at += length
    return tokens, positions, segments


def test_equals_a_forward_pass_in_numpy(kind):
    config = small_config(kind)
    model = lively(config)
    tokens, positions, segments = row(9, 15)
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    want = reference_logits(config, params, tokens[0], positions[0], segments[0])
    got = runner(config)(tokens, positions, segments)[0]
    np.testing.assert_allclose(got[:, :61], want[:, :61], rtol=2e-4, atol=2e-4)
    assert np.all(np.isneginf(got[:, 61:])), "padding of the vocabulary must never be likely"


def test_a_token_changes_nothing_before_it_and_no_other_document(kind):
    config = small_config(kind)
    run = runner(config)
    tokens, positions, segments = row(8, 10, 6)
    before = run(tokens, positions, segments)[0, :, :61]
    for place in (0, 3, 8, 13, 23):
        changed = tokens.copy()
        changed[0, place] = (changed[0, place] + 7) % 61
        after = run(changed, positions, segments)[0, :, :61]
        differs = np.any(np.asarray(after != before), axis=1)
        mine = segments[0] == segments[0, place]
        later = np.arange(24) >= place
        assert not differs[~(mine & later)].any()
        near = np.arange(24) < place + (config.sliding_window or 24)
        assert differs[mine & later & near].all()


def test_packed_documents_equal_the_documents_alone(kind):
    run = runner(small_config(kind))
    tokens, positions, segments = row(8, 8, 8)
    packed = run(tokens, positions, segments)[0, :, :61]
    for at in (0, 8, 16):
        here = slice(at, at + 8)
        alone = run(tokens[:, here], np.arange(8)[None], np.ones((1, 8), np.int32))
        np.testing.assert_allclose(packed[here], alone[0, :, :61], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "remat",
    ["full", *(pytest.param(r, marks=pytest.mark.slow) for r in ("save_dots", "save_attention"))],
)
def test_remat_changes_no_gradient(remat):
    _same_gradients(small_config(remat=remat))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [{}, {"remat_save": ("gate", "query")}])
def test_what_waits_in_the_hosts_memory_changes_no_gradient(kept):
    _same_gradients(small_config(remat="full", remat_offload=("block", "attention"), **kept))


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"remat": "full"}, set()),
        ({"remat": "full", "remat_save": ("up", "block")}, {"up", "block"}),
        ({"remat": "save_attention", "remat_save": ("query",)}, {"attention", "query"}),
    ],
)
def test_remat_keeps_what_it_is_told_to(config, names):
    """What the forward scan stacks of its layers: beside what it must, the named and no more."""

    def stacked(config):
        outline = parameters.outline(config)
        loss = jax.grad(lambda p: (parameters.bind(outline, p)(*row(16)) ** 2).sum())
        forward = next(equations(jax.make_jaxpr(loss)(parameters.shapes(outline)), "scan"))
        return len(forward.outvars) - forward.params["num_carry"]

    more = stacked(small_config(**config)) - stacked(small_config(remat="full"))
    assert more == len(names - {"block"})  # that is what comes in, and kept anyhow


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"remat": "full", "remat_save": ("gat",)},
            r"remat_save=\['gat'\]: choose of block, query",
        ),
        ({"remat_offload": ("gate",)}, r"remat_offload=\['gate'\]: with remat='none' everything"),
    ],
)
def test_remat_that_cannot_be(config, says):
    with pytest.raises(ValueError, match=says):
        small_config(**config)


@pytest.mark.slow
def test_scan_unroll_changes_no_gradient():
    _same_gradients(small_config(scan_unroll=3))


@pytest.mark.parametrize("unroll", [1, 3])
def test_remat_computes_again(unroll):
    """As compiled: the products of the forward pass are there a second time, loop or none."""

    def products(remat):
        config = small_config(remat=remat, scan_unroll=unroll)
        outline = parameters.outline(config)
        loss = jax.grad(lambda p: (parameters.bind(outline, p)(*row(16)) ** 2).sum())
        jaxpr = jax.make_jaxpr(loss)(parameters.shapes(outline))
        merged = {not e.params["prevent_cse"] for e in equations(jaxpr, "checkpoint", "remat2")}
        assert merged == (set() if remat == "none" else {unroll < config.num_layers})
        text = jax.jit(loss).lower(parameters.shapes(outline)).compile().as_text()
        return text.count(" dot(")

    # All but the last of a block: its result is in nothing that is differentiated.
    forward = 4 + 2 + 3 - 1
    assert products("full") - products("none") >= unroll * (forward - 1)


def _same_gradients(config):
    inputs = row(11, 13)
    params = jax.jit(lambda: parameters.initialize(small_config(), 0))()

    def gradients(config):
        outline = parameters.outline(config)
        return jax.jit(
            jax.grad(lambda p: (parameters.bind(outline, p)(*inputs)[..., :61] ** 2).sum())
        )(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradients(config),
        gradients(small_config()),
    )


def test_bfloat16_stays_near_float32_and_keeps_float32_parameters():
    half = lively(small_config(dtype="bfloat16"))
    assert {p.dtype for p in jax.tree.leaves(nnx.state(half, nnx.Param))} == {jnp.dtype("float32")}
    full, low = (runner(m.config)(*row(24))[0, :, :61] for m in (lively(small_config()), half))
    assert low.dtype == jnp.float32
    assert 0 < jnp.abs(full - low).max() < 0.1 * jnp.abs(full).max()


def test_parameter_count(kind):
    config = small_config(kind)
    shapes = parameters.shapes(parameters.outline(config))
    assert config.num_params() == sum(s.size for s in jax.tree.leaves(shapes))


def test_initial_values_are_as_documented():
    config = small_config(embed_dim=256, mlp_dim=512, num_layers=8, bias=True)
    params = parameters.initialize(config, 3)
    blocks = params["blocks"]
    for values, std in (
        (params["embedding"], 0.02),
        (blocks["attention"]["query"], 0.02),
        (blocks["mlp"]["up"], 0.02),
        (blocks["attention"]["out"], 0.02 / 4),
        (blocks["mlp"]["down"], 0.02 / 4),
    ):
        assert abs(float(values.std()) / std - 1) < 0.03
        assert abs(float(values.mean())) < std / 20
    assert (blocks["mlp_norm"]["scale"] == 1).all() and (blocks["mlp"]["up_bias"] == 0).all()
    first, second = blocks["mlp"]["up"][0], blocks["mlp"]["up"][1]
    assert abs(float(jnp.corrcoef(first.ravel(), second.ravel())[0, 1])) < 0.02, "layers differ"


def test_initial_values_do_not_depend_on_the_mesh():
    config = small_config()
    one = jax.jit(lambda: parameters.initialize(config, 0))()
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    where = jax.tree.map(lambda p: split if p.ndim > 1 and p.shape[1] % 8 == 0 else None, one)
    many = jax.jit(lambda: parameters.initialize(config, 0), out_shardings=where)()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9), one, many)


def test_every_parameter_names_its_axes(kind):
    outline = parameters.outline(small_config(kind))
    shapes, axes = parameters.shapes(outline), parameters.logical_axes(outline)
    jax.tree.map(lambda s, a: None if len(a) == len(s.shape) else pytest.fail(str(a)), shapes, axes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(num_layers=0), "num_layers=0: must be at least 1"),
        (dict(num_kv_heads=3), "num_heads=4 is not a multiple of num_kv_heads=3"),
        (dict(head_dim=7), "head_dim=7: rotary positions need an even head size"),
        (dict(sliding_window=-1), "sliding_window=-1: must not be negative"),
        (dict(scan_unroll=2), "scan_unroll=2 does not divide num_layers=3"),
    ],
)
def test_impossible_shapes_are_refused(change, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        small_config(**change)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rotation_and_its_gradient_are_rounded_once(dtype):
    """To the bit those of the formula in float32."""

    def written_out(x_BTNH, angles):
        cos, sin = jnp.cos(angles)[:, :, None, :], jnp.sin(angles)[:, :, None, :]
        first, second = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
        turned = [first * cos - second * sin, second * cos + first * sin]
        return jnp.concatenate(turned, axis=-1).astype(x_BTNH.dtype)

    keys = jax.random.split(jax.random.key(0), 3)
    x, grad = (jax.random.normal(key, (2, 16, 4, 8), dtype) for key in keys[:2])
    angles = 9 * jax.random.normal(keys[2], (2, 16, 4))
    found, back = jax.vjp(lambda x: rotate(x, angles), x)
    expected, expected_back = jax.vjp(lambda x: written_out(x, angles), x)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(back(grad)[0], expected_back(grad)[0])
