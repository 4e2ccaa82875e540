"""Likelihoods of labels, beside a forward pass of the decoder for each label alone."""

import jax
import numpy as np
import pytest
from flax import nnx

from cluster.interrupts import BrokenOff
from errors import UserError
from evaluation.tasks import likelihood
from evaluation.tasks.likelihood import Likelihoods, choose
from evaluation.tasks.trie import Trie, plant
from model import parameters
from model.config import ModelConfig
from sharding.config import MeshConfig
from sharding.means import means
from tests.model.conftest import KINDS, lively, runner, small_config
from tests.training.sharded import mesh_of
from training.state import abstract_params, shardings_of

EOS = 1
LABELS = [(9,), (7, 8), (7, 8, 5), (7, 8, 5, 4), (30, 2), (30, 3, 3), (12, 12, 12, 12, 12, 12)]
"""One token and many; two that others begin with; a token that comes again."""
QUICK = ("gemma",)
PROMPTS = [(5,), (0, 17, 4, 40), (0, *range(20, 36)), (3, 3, 3), (0, *range(41, 58))]


def tree() -> Trie:
    return plant([str(ids) for ids in LABELS], LABELS, EOS)


def likelihoods(
    config: ModelConfig, batch_size: int, **sizes: int
) -> tuple[Likelihoods, parameters.Params]:
    mesh = mesh_of(**sizes)
    layout = MeshConfig(**sizes)  # type: ignore[arg-type]
    outline = parameters.outline(config, means(mesh, config, layout))
    where = shardings_of(abstract_params(outline, mesh))
    params = jax.device_put(nnx.to_pure_dict(nnx.state(lively(config), nnx.Param)), where)
    return Likelihoods(config, mesh, layout, where, tree(), batch_size), params


def one_by_one(config: ModelConfig, prompts=PROMPTS, labels=LABELS) -> np.ndarray:
    """Of each prompt and label: the row of both, its softmax in float64, and a sum."""
    run, length = runner(config), 24
    ended = [(*ids, EOS) if ids in ((7, 8), (7, 8, 5)) else ids for ids in labels]
    found = np.zeros((len(prompts), len(labels)))
    for p, prompt in enumerate(prompts):
        for index, label in enumerate(ended):
            ids = [*prompt, *label]
            row = np.array([ids + [0] * (length - len(ids))], np.int32)
            ones = np.ones((1, length), np.int32)
            found_TV = run(row, np.arange(length)[None], ones)[0, :, : config.vocab_size]
            logits = np.asarray(found_TV, np.float64)
            for at in range(len(prompt), len(ids)):
                before = logits[at - 1]
                top = before.max()
                found[p, index] += before[ids[at]] - top - np.log(np.exp(before - top).sum())
    return found


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_equal_a_pass_for_each_label(kind):
    config = small_config(kind)
    score, params = likelihoods(config, 3)
    want = one_by_one(config)
    assert np.ptp(want) > 5  # they differ by far more than what is allowed
    np.testing.assert_allclose(score(params, PROMPTS), want, rtol=1e-5, atol=1e-5)


def test_logits_in_parts_give_the_same():
    # Of 8 rows those of two tokens are a MB, and eleven tokens have some.
    config = small_config("gemma", vocab_multiple=1 << 14, logits_mb=1)
    score, params = likelihoods(config, 8)
    np.testing.assert_allclose(score(params, PROMPTS), one_by_one(config), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["gemma3", pytest.param("gpt_oss", marks=pytest.mark.slow)])
def test_queries_in_blocks_give_the_same(kind, monkeypatch):
    monkeypatch.setattr(likelihood, "_BLOCK", 7)
    config = small_config(kind)
    score, params = likelihoods(config, 3)
    np.testing.assert_allclose(score(params, PROMPTS), one_by_one(config), rtol=1e-5, atol=1e-5)


def test_batch_size_and_order_change_nothing():
    config = small_config("gemma3")
    alone, params = likelihoods(config, 1)
    together, _ = likelihoods(config, 8)
    want = alone(params, PROMPTS)
    np.testing.assert_allclose(together(params, PROMPTS), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(together(params, PROMPTS[::-1]), want[::-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("llama", dict(data=2, fsdp=2, tensor=2)),
        pytest.param("mixtral", dict(expert=2, tensor=2), marks=pytest.mark.slow),
        pytest.param("gemma3", dict(context=2, tensor=2, fsdp=2), marks=pytest.mark.slow),
        pytest.param("latent", dict(fsdp=4), marks=pytest.mark.slow),
        pytest.param("gpt2", dict(pipeline=2, tensor=2), marks=pytest.mark.slow),
    ],
)
def test_on_a_mesh(kind, sizes):
    config = small_config(kind, num_layers=4)
    score, params = likelihoods(config, 4, **{"data": 1, **sizes})
    np.testing.assert_allclose(score(params, PROMPTS), one_by_one(config), rtol=1e-5, atol=2e-5)


def test_what_is_too_long():
    config = small_config()
    score, params = likelihoods(config, 2)
    assert score.too_long(range(19)) == ""  # and five of the longest label are fed
    assert score.too_long(range(20)) == ("its 20 tokens and 5 of the labels exceed the model's 24")
    longest = [(0, *range(20, 38))]
    want = one_by_one(config, longest, LABELS[:1])
    np.testing.assert_allclose(score(params, longest)[:, :1], want, rtol=1e-5)


def test_breaks_off():
    score, params = likelihoods(small_config(), 2)
    seen: list[tuple[int, int]] = []
    with pytest.raises(BrokenOff):
        score(params, PROMPTS, lambda *at: seen.append(at), lambda: True)
    assert seen == [(1, 3)]


def test_the_tree():
    found = tree()
    assert found.lengths.tolist() == [1, 3, 4, 4, 2, 3, 6]
    # Fed is what something follows: 7, 78, 785, 30, 30 3 and five of the twelves.
    assert len(found.tokens_M) == 3 + 2 + 5
    assert found.depth == 5
    assert found.sees_MM.sum(axis=1).tolist() == found.depth_M.tolist()


def test_labels_that_cannot_be():
    with pytest.raises(UserError, match="the label ' yes' has no token: a label cannot be empty"):
        plant([" yes"], [()], EOS)
    with pytest.raises(UserError, match="the labels 'a' and 'A' have the same tokens"):
        plant(["a", "A"], [(3,), (3,)], EOS)


def test_ties_count_as_a_part():
    scores = np.array([-2.0, -1.0, -3.0, -1.0])
    assert choose(scores, 1) == (1, 0.5)
    assert choose(scores, 3) == (1, 0.5)
    assert choose(scores, 0) == (1, 0.0)
    assert choose(np.array([-2.0, -1.0]), 1) == (1, 1.0)
