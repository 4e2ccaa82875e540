"""DPO, IPO and SimPO against their formulas, written out answer by answer."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import parameters
from sharding import means as computing
from tests.training.sharded import MODEL, begin, host, mesh_of
from training.objectives.config import ObjectiveConfig
from training.objectives.objective import REFERENCE, objective
from training.objectives.pairs import pairs
from training.objectives.preferences import compared
from training.step import gradients

B, T = 8, 16
SLOW = pytest.mark.slow
HOW = {
    "dpo": ObjectiveConfig("dpo", teacher="x", beta=0.3, label_smoothing=0.1),
    "ipo": ObjectiveConfig("ipo", teacher="x", beta=0.3),
    "simpo": ObjectiveConfig("simpo", beta=2.0, margin=0.5),
}
LENGTHS = [
    # of a prompt, of the better answer, of the other one
    [(3, 2, 4)],
    [(1, 1, 2), (2, 3, 1)],
    [],
    [(2, 4, 4)],
    [(1, 1, 1), (1, 2, 1), (1, 1, 2)],
    [(4, 4, 1)],
    [],
    [(2, 1, 5)],
]


@functools.cache
def batch() -> dict[str, Any]:
    """Pairs in rows: unequally many, unequally long, padding after them, rows without any."""
    rng = np.random.default_rng(0)
    shape = (B, T)
    made = {
        "tokens": rng.integers(0, 120, shape),
        "targets": rng.integers(0, 120, shape),
        "segments": np.zeros(shape),
        "positions": np.zeros(shape),
        "bytes": rng.integers(1, 5, shape),
    }
    made = {name: array.astype(np.int32) for name, array in made.items()}
    weights = np.zeros(shape, np.float32)
    for row, lengths in enumerate(LENGTHS):
        at = 0
        for number, (prompt, *answers) in enumerate(lengths):
            for which, answer in enumerate(answers):
                here = slice(at, at + prompt + answer - 1)
                made["segments"][row, here] = 2 * number + which + 1
                made["positions"][row, here] = np.arange(prompt + answer - 1)
                weights[row, at + prompt - 1 : here.stop] = 1
                at = here.stop
    reference = rng.normal(-4, 1, shape).astype(np.float32)
    return made | {"weights": weights, REFERENCE: reference}


@functools.cache
def params() -> Any:
    return host(begin(mesh_of()).state.params)


def one_by_one(name: str, log_probs_BT: Any) -> dict[str, Any]:
    """The sums over pairs, each answer by itself."""
    how, rows, found = HOW[name], batch(), []
    for row, lengths in enumerate(LENGTHS):
        for number in range(len(lengths)):
            rewards, log_probs = [], []
            for segment in (2 * number + 1, 2 * number + 2):
                here = (rows["segments"][row] == segment) & (rows["weights"][row] > 0)
                log_pi = jnp.sum(log_probs_BT[row] * here)
                ratio = log_pi - (rows[REFERENCE][row] * here).sum()
                reward = {
                    "dpo": how.beta * ratio,
                    "ipo": how.beta * ratio / here.sum(),
                    "simpo": how.beta * log_pi / here.sum(),
                }[name]
                rewards.append(reward)
                log_probs.append(log_pi)
            h = rewards[0] - rewards[1]
            loss = {
                "dpo": -0.9 * jnp.log(1 / (1 + jnp.exp(-h))) - 0.1 * jnp.log(1 / (1 + jnp.exp(h))),
                "ipo": (h / how.beta - 1 / (2 * how.beta)) ** 2,
                "simpo": -jnp.log(1 / (1 + jnp.exp(-(h - how.margin)))),
            }[name]
            found.append(
                {
                    "preference_loss": loss,
                    "margin": h,
                    "accuracy": (h > 0) + 0.5 * (h == 0),
                    "reward_chosen": rewards[0],
                    "reward_rejected": rewards[1],
                    "log_prob_chosen": log_probs[0],
                    "log_prob_rejected": log_probs[1],
                }
            )
    return {key: sum(one[key] for one in found) for key in found[0]} | {"pairs": len(found)}


@functools.cache
def expected(name: str) -> Any:
    """From whole logits, differentiated by JAX."""
    outline, rows = parameters.outline(MODEL), batch()

    def total(p: Any) -> Any:
        logits = parameters.bind(outline, p)(rows["tokens"], rows["positions"], rows["segments"])
        log_probs = jax.nn.log_softmax(logits, -1)
        sums = one_by_one(
            name, jnp.take_along_axis(log_probs, rows["targets"][..., None], -1)[..., 0]
        )
        return sums["preference_loss"] / sums["pairs"], sums

    (_, sums), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params())
    return host(grads), host(sums)


@functools.cache
def found(name: str, microbatches: int = 1, **sizes: int) -> Any:
    mesh = mesh_of(**sizes)
    outline = parameters.outline(MODEL, computing.means(mesh, MODEL))
    asked = objective(HOW[name])
    run = jax.jit(lambda p, b: gradients(outline, p, b, microbatches, 0.0, mesh, minimised=asked))
    return host(run(params(), batch()))


def assert_same(a: Any, b: Any, bound: float) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=bound, atol=bound * float(np.abs(y).max()))


@pytest.mark.parametrize("name", sorted(HOW))
def test_each_pair_by_itself(name: str) -> None:
    rows = batch()
    log_probs: Any = np.random.default_rng(1).normal(-4, 1, (B, T)).astype(np.float32)
    of = pairs(log_probs, rows[REFERENCE], rows["segments"], rows["weights"])
    sums = {key: float(jnp.sum(value)) for key, value in compared(HOW[name], of).items()}
    for key, value in one_by_one(name, log_probs).items():
        if key != "pairs":
            assert sums[key] == pytest.approx(float(value), rel=1e-5), key
    assert int(of.is_pair.sum()) == 9


@pytest.mark.parametrize(
    "name", ["dpo", *(pytest.param(name, marks=SLOW) for name in ("ipo", "simpo"))]
)
def test_sums_and_gradients(name: str) -> None:
    (grads, sums), (grads_one, sums_one) = found(name), expected(name)
    assert sums["pairs"] == 9
    for key, value in sums_one.items():
        np.testing.assert_allclose(sums[key], value, rtol=1e-5, err_msg=key)
    assert sums["tokens"] == batch()["weights"].sum()
    assert_same(grads, grads_one, 2e-5)


@pytest.mark.parametrize("microbatches", [2, 4])
@pytest.mark.parametrize("name", ["dpo", pytest.param("ipo", marks=SLOW)])
def test_accumulation_is_the_large_batch(name: str, microbatches: int) -> None:
    counts = [sum(map(len, LENGTHS[i::microbatches])) for i in range(microbatches)]
    assert len(set(counts)) > 1  # pairs fall unequally
    (grads, sums), (grads_one, sums_one) = found(name, microbatches), found(name)
    assert_same(sums, sums_one, 1e-6)
    assert_same(grads, grads_one, 1e-6)


@pytest.mark.parametrize(
    "sizes",
    [
        dict(data=2, fsdp=2, tensor=2),
        pytest.param(dict(context=2, tensor=2, fsdp=2), marks=SLOW),
        pytest.param(dict(fsdp=8), marks=SLOW),
    ],
    ids=lambda s: "x".join(f"{k}{v}" for k, v in s.items()),
)
def test_meshes_equal_one_device(sizes: dict[str, int]) -> None:
    (grads, sums), (grads_one, sums_one) = found("dpo", **sizes), found("dpo")
    assert_same(sums, sums_one, 1e-5)
    assert_same(grads, grads_one, 2e-5)


def test_prompts_padding_and_neighbours_count_nothing() -> None:
    """Another reference on prompts and padding, and other rows, leave a pair's loss as it is."""
    rows = dict(batch())
    hidden = rows["weights"] == 0
    assert hidden.sum() > 20
    rows[REFERENCE] = np.where(hidden, 1e3, rows[REFERENCE])
    outline, mesh = parameters.outline(MODEL), mesh_of()
    asked = objective(HOW["dpo"])
    of = jax.jit(lambda b: asked.sums(parameters.bind(outline, params()), b, mesh, None)[1])
    assert_same(host(of(rows)), host(of(batch())), 1e-7)
    alone = [
        host(of({k: np.where(_only(v, row), v, 0) for k, v in batch().items()})) for row in range(B)
    ]
    total = {key: sum(one[key] for one in alone) for key in alone[0]}
    assert_same(total, host(of(batch())), 1e-5)


def _only(array: np.ndarray, row: int) -> np.ndarray:
    return (np.arange(array.shape[0]) == row)[:, None]


def test_equal_rewards_are_half_right() -> None:
    """The policy is its own reference: all margins are zero, and so nothing is known."""
    outline, mesh = parameters.outline(MODEL), mesh_of()
    asked = objective(ObjectiveConfig("dpo", teacher="x"), teacher=outline)
    of = jax.jit(lambda p, b: asked.sums(parameters.bind(outline, p), b, mesh, p)[1])
    sums = host(of(params(), batch()))
    assert sums["margin"] == 0 and sums["accuracy"] == sums["pairs"] / 2
    np.testing.assert_allclose(sums["preference_loss"], 9 * np.log(2), rtol=1e-6)
