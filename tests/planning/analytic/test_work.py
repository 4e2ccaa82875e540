"""What a device computes, against numbers worked out by hand and what JAX traces."""

import dataclasses
import math
import typing

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from model import remat
from model.config import Remat
from model.decoder import Block
from model.latent_config import LatentConfig
from model.layers import Means
from planning.analytic import layout, work
from planning.topology import parse
from tests.jaxprs import equations
from tests.planning.runs import LLAMA, SMALL, llama, run_of
from training.muon import scale_by_muon

ATTENTION, MLP = 41_943_040, 176_160_768
"""Weights of a block of Llama 3 8B: 4,096 x 128 x 2 x (32 + 8), and 3 x 4,096 x 14,336."""


def flops(laid, **like) -> float:
    return sum(
        line.flops
        for line in work.work(laid)
        if all(getattr(line, key) == value for key, value in like.items())
    )


def test_llama_by_hand():
    """A row of 8,192 tokens on each of 256 chips, all of the blocks computed again."""
    laid, tokens = llama("v5e:16x16", 256), 8192
    products = "products with weights"
    assert flops(laid, name=products, phase="forward") == 2 * tokens * 32 * (ATTENTION + MLP)
    assert flops(laid, name=products, phase="backward") == 4 * tokens * 32 * (ATTENTION + MLP)
    # But for the product after the hidden activations, a third of the MLP.
    again = 2 * tokens * 32 * (ATTENTION + MLP * 2 / 3)
    assert flops(laid, name=products, phase="recomputed") == pytest.approx(again)
    head = 6 * tokens * 128256 * 4096
    assert flops(laid, name="logits, loss and gradients") == head
    # 16 blocks of 512 queries see 1 to 16 blocks of keys: 136 of 256 pairs of blocks.
    scores = 2 * 32 * 32 * 128 * 136 * 512 * 512
    assert flops(laid, name="scores and values", phase="forward") == 2 * scores
    assert flops(laid, name="scores and values", phase="recomputed") == 2 * scores
    assert flops(laid, name="scores and values", phase="backward") == 7 * scores
    # The model's: 7,504,658,432 weights that multiply a token, and the visible half of attention.
    model = 6 * 7_504_658_432 + 6 * 32 * 4096 * 8192
    assert work.model_flops(laid) == tokens * model


def test_tensor_splits_the_work():
    one, eight = llama("v5e:16x16", 256), llama("v5e:16x16", 32, tensor=8)
    for name in ("products with weights", "scores and values", "logits, loss and gradients"):
        # The same rows a device, of an eighth of everything else.
        assert flops(eight, name=name) == pytest.approx(flops(one, name=name) / 8), name


def test_microbatches_are_added_up():
    one, four = llama("v5e:16x16", 1024), llama("v5e:16x16", 1024, accumulation=4)
    assert flops(one) == pytest.approx(flops(four))


def test_stages_compute_also_when_they_have_nothing_to_do():
    """Four stages of eight layers, 16 rows on a chip, one at a time: 19 times, and 16 count."""
    plain, staged = llama("v5e:4x4", 64), llama("v5e:4x4", 64, pipeline=4)
    assert (staged.stages.microbatches, staged.rows, staged.layers) == (16, 1, 8)
    for name in ("products with weights", "scores and values"):
        assert flops(staged, name=name) == pytest.approx(flops(plain, name=name) * 19 / 16), name
    rounds = llama("v5e:4x4", 64, pipeline=4, rounds=2)
    assert flops(rounds, name="scores and values") == pytest.approx(
        flops(plain, name="scores and values") * 35 / 32
    )
    head = "logits, loss and gradients"
    assert flops(staged, name=head) == flops(plain, name=head)


@pytest.mark.parametrize("latent", [False, True], ids=["heads", "latent"])
@pytest.mark.parametrize(
    ("policy", "save"),
    [*((policy, ()) for policy in typing.get_args(Remat)), ("full", ("query", "out", "gate"))],
)
def test_products_with_weights_are_those_that_jax_traces(policy, save, latent):
    """Those of a block and its gradients in a jaxpr, attention being none."""
    kinds = dict(remat=policy, remat_save=save, num_kv_heads=2, num_layers=1)
    if latent:
        few = LatentConfig(kv_rank=12, query_rank=20, rope_dim=4, value_dim=6)
        kinds |= dict(num_kv_heads=SMALL.num_heads, latent=few)
    model = dataclasses.replace(SMALL, **kinds)
    rows, length = 3, 32

    def no_attention(q, k, v, *_):
        return q[..., : v.shape[-1]] * q.mean() * k.mean() * v.mean()

    definition, state = nnx.split(
        Block(model, nnx.Rngs(0), Means(attend=no_attention), experts=False)
    )

    def layer(x, state):
        angles = jnp.zeros((rows, length, few.rope_dim // 2)) if latent else None
        return nnx.merge(definition, state)(x, None, angles, None, None, 0)[0]

    if policy != "none":
        layer = jax.checkpoint(layer, policy=remat.policy(model))
    x = jnp.zeros((rows, length, model.embed_dim))
    jaxpr = jax.make_jaxpr(jax.value_and_grad(lambda *of: layer(*of).sum(), argnums=(0, 1)))
    traced = 0
    for equation in equations(jaxpr(x, state), "dot_general"):
        (left, _), _ = equation.params["dimension_numbers"]
        summed = math.prod(equation.invars[0].aval.shape[i] for i in left)
        traced += 2 * summed * equation.outvars[0].aval.size
    laid = layout.of(run_of(model, rows, length), parse("cpu:1"))
    assert flops(laid, name="products with weights") == traced


@pytest.mark.parametrize(
    ("length", "window", "topology", "pairs"),
    [
        (2048, 0, "v5e:1x1", 10 * 512**2),  # 4 blocks: 1 + 2 + 3 + 4
        (2048, 512, "v5e:1x1", 7 * 512**2),  # each but the first sees the one before it too
        (2048, 513, "v5e:1x1", 7 * 512**2),
        (2048, 514, "v5e:1x1", 9 * 512**2),
        (640, 0, "v5e:1x1", 15 * 128**2),  # blocks of 128
        (1000, 0, "v5e:1x1", 3 * 512**2),  # padded to 1,024
        (512, 0, "cpu:1", 3 * 256**2),
        (128, 0, "h100:1", 3 * 64**2),
    ],
)
def test_pairs_of_queries_and_keys(length, window, topology, pairs):
    model = dataclasses.replace(LLAMA, sliding_window=window)
    assert work.pairs(layout.of(run_of(model, 1, length), parse(topology))) == pairs


def test_blocks_are_those_of_the_kernel():
    from model.kernels import blockwise, splash

    for length in (128, 640, 768, 8192):
        laid = layout.of(run_of(LLAMA, 1, length), parse("v5e:1x1"))
        assert work.block(laid) == next(side for side in splash._BLOCKS if length % side == 0)
    laid = layout.of(run_of(LLAMA, 1, 8192), parse("cpu:1"))
    assert work.block(laid) == blockwise.BLOCK


@pytest.mark.parametrize(
    ("size", "side", "share"), [(128, 128, 1), (64, 128, 0.5), (128, 256, 0.5)]
)
def test_filled(size, side, share):
    assert work.filled(size, side) == share
    assert work.filled(size, 0) == 1  # units that have no sides


def test_heads_of_128_half_fill_units_of_256():
    laid = llama("v6e:16x16", 256)
    for line in work.work(laid):
        assert line.padded == pytest.approx(line.flops * (2 if "scores" in line.name else 1))


def test_muon_by_its_own_jaxpr():
    """Newton-Schulz of the matrices of a small model, on one device."""
    from model import parameters
    from training import muon

    model = dataclasses.replace(SMALL, num_kv_heads=2)
    outline = parameters.outline(model)
    found = muon.matrices(parameters.logical_axes(outline))
    tx = scale_by_muon(0.9, found, model, lambda function, x: function(x))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), parameters.shapes(outline))
    state = tx.init(params)
    traced = 0
    jaxpr = jax.make_jaxpr(tx.update)(params, state)
    for equation in equations(jaxpr, "dot_general"):
        (left, _), _ = equation.params["dimension_numbers"]
        summed = math.prod(equation.invars[0].aval.shape[i] for i in left)
        traced += 2 * summed * equation.outvars[0].aval.size
    laid = layout.of(run_of(model, 1, 32, optimizer="muon"), parse("cpu:1"))
    assert flops(laid, name="Muon") == work.ITERATIONS * traced  # it traces its loop once
