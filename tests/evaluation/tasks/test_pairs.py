"""Pairs of answers: each figure beside one written out from whole logits, answer by answer."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from flax import nnx

from data.examples.sequences import Sequence
from data.tokenizer import ByteTokenizer
from errors import UserError
from evaluation import intervals
from evaluation.tasks.cases import Paired
from evaluation.tasks.pairs import Judged, Reference, fitting, judge
from model import parameters
from model.config import ModelConfig
from sharding.means import means
from tests.model.conftest import lively, small_config
from tests.training.sharded import mesh_of
from training.objectives.config import ObjectiveConfig

TOKENIZER = ByteTokenizer()
CONFIG = small_config("llama", vocab_size=258, max_length=48, num_heads=4, num_kv_heads=2)
THEIRS = dataclasses.replace(CONFIG, embed_dim=16, num_layers=2)
DPO = ObjectiveConfig("dpo", beta=0.3)


def sequence(prompt: str, answer: str) -> Sequence:
    ids = [TOKENIZER.bos_id, *prompt.encode(), *answer.encode(), TOKENIZER.eos_id]
    learned = np.arange(len(ids)) > len(prompt)
    return Sequence(np.array(ids, np.uint32), learned, len(prompt) + len(answer))


def case(prompt: str, chosen: str, rejected: str) -> Paired:
    answers = [sequence(prompt, chosen), sequence(prompt, rejected)]
    return Paired(f"{prompt}{chosen}", prompt, chosen, rejected, answers)


def letters(n: int, seed: int) -> str:
    return "".join(map(chr, 97 + np.random.default_rng(seed).integers(0, 26, n)))


# Four questions; unequally many pairs of each, and unequally long.
CASES = [
    case(f"{'q' * (1 + i % 4)}?", letters(1 + i % 3, i), letters(1 + i % 5, 99 - i))
    for i in range(11)
]


Logits = Callable[..., jax.Array]


def logits_of(config: ModelConfig, seed: int = 0) -> Logits:
    model = lively(config, seed)
    return jax.jit(lambda *rows: model(*rows))


class Expected(NamedTuple):
    accuracy: list[float]
    margins: list[float]
    kl: float


def log_softmax(model: Logits, ids: np.ndarray) -> np.ndarray:
    """[T, V], float64, of a document that is alone in its row; what is after it is not seen."""
    tokens = np.zeros((1, 24), np.int32)
    tokens[0, : len(ids) - 1] = ids[:-1]
    whole = model(tokens, np.arange(24)[None], np.ones_like(tokens))[0]
    logits = np.asarray(whole, np.float64)[: len(ids) - 1, :258]
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def written_out(ours: Logits, theirs: Logits | None, beta: float) -> Expected:
    accuracy, margins, kls = [], [], []
    for one in CASES:
        rewards = []
        for answer in one.answers:
            learned = np.flatnonzero(answer.learned[1:])
            log_q = log_softmax(ours, answer.ids)[learned]
            targets = answer.ids[1:][learned]
            reward = log_q[np.arange(learned.size), targets].sum()
            if theirs is not None:
                log_p = log_softmax(theirs, answer.ids)[learned]
                reward -= log_p[np.arange(learned.size), targets].sum()
                kls += (np.exp(log_q) * (log_q - log_p)).sum(1).tolist()
            rewards.append(beta * reward)
        margins.append(rewards[0] - rewards[1])
        accuracy.append(1.0 if margins[-1] > 0 else 0.5 if margins[-1] == 0 else 0.0)
    return Expected(accuracy, margins, float(np.mean(kls)) if kls else 0.0)


def judged(
    cases: list[Paired],
    with_reference: bool = True,
    batch_size: int = 4,
    objective: ObjectiveConfig = DPO,
    sizes: dict[str, int] | None = None,
) -> Judged:
    mesh = mesh_of(**(sizes or {}))
    params = nnx.to_pure_dict(nnx.state(lively(CONFIG), nnx.Param))
    outline = parameters.outline(CONFIG, means(mesh, CONFIG))
    reference = None
    if with_reference:
        other = nnx.to_pure_dict(nnx.state(lively(THEIRS, 1), nnx.Param))
        reference = Reference(parameters.outline(THEIRS, means(mesh, THEIRS)), other)
    return judge("mine", cases, outline, params, reference, objective, mesh, batch_size)


@pytest.mark.parametrize("with_reference", [True, False])
def test_beside_whole_logits(with_reference: bool) -> None:
    found = judged(CASES, with_reference)
    other = logits_of(THEIRS, 1) if with_reference else None
    expected = written_out(logits_of(CONFIG), other, 0.3)
    assert [one["right"] for one in found.answers] == expected.accuracy
    assert 0 < sum(expected.accuracy) < len(CASES)
    ours = [one["margin"] for one in found.answers]
    np.testing.assert_allclose(ours, expected.margins, atol=2e-4)
    assert found.means["margin"] == pytest.approx(np.mean(expected.margins), abs=2e-5)
    assert ("kl" in found.means) == with_reference
    if with_reference:
        assert found.means["kl"] == pytest.approx(expected.kl, rel=1e-5)
    assert found.accuracy.value == pytest.approx(100 * np.mean(expected.accuracy))


def test_the_interval_is_over_questions() -> None:
    found = judged(CASES)
    assert (found.examples, found.questions) == (11, 4)
    rights = np.array([one["right"] for one in found.answers])
    sums = np.array([[rights[i::4].sum(), len(rights[i::4])] for i in range(4)])
    expected = intervals.of_groups(sums)
    assert found.accuracy == pytest.approx(expected)
    line = found.line()
    assert line["questions"] == 4 and line["accuracy_95"] == [
        pytest.approx(expected.low, abs=1e-4),
        pytest.approx(expected.high, abs=1e-4),
    ]
    assert str(found).endswith(", 11 pairs of 4 questions") and ", KL " in str(found)


def test_a_model_beside_itself() -> None:
    mesh = mesh_of()
    params = nnx.to_pure_dict(nnx.state(lively(CONFIG), nnx.Param))
    outline = parameters.outline(CONFIG, means(mesh, CONFIG))
    itself = Reference(outline, params)
    found = judge("mine", CASES, outline, params, itself, DPO, mesh, 4)
    assert found.accuracy == intervals.of_share(2, 4) and found.accuracy.low < 20
    assert found.means["kl"] == found.means["margin"] == 0


def test_the_objective_says_what_a_reward_is() -> None:
    whole = judged(CASES, objective=dataclasses.replace(DPO, beta=1.0))
    mean = judged(CASES, objective=ObjectiveConfig("ipo", beta=1.0))
    for i, one in enumerate(CASES):
        chosen = one.answers[0].learned.sum()
        ours, theirs = (found.answers[i]["reward_chosen"] for found in (mean, whole))
        assert ours == pytest.approx(theirs / chosen, abs=2e-5)


@pytest.mark.parametrize(
    "sizes",
    [{"data": 2, "fsdp": 2, "tensor": 2}, pytest.param({"context": 8}, marks=pytest.mark.slow)],
)
def test_on_meshes(sizes: dict[str, int]) -> None:
    one, many = judged(CASES), judged(CASES, sizes=sizes)
    assert many.accuracy == one.accuracy
    for name, value in one.means.items():
        assert many.means[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name


def test_what_is_too_long() -> None:
    cases: Any = [*CASES, case("y" * 40, "a", "b" * 9)]
    limits = {"the model": 48, "the reference": 64}
    with pytest.raises(UserError, match=r"is too long \(its 50 tokens exceed the 48 of the model"):
        fitting("mine", cases, limits, refuse=True)
    assert fitting("mine", cases, limits, refuse=False) == CASES
    with pytest.raises(UserError, match="all 1 pairs of task 'mine' are too long"):
        fitting("mine", cases[-1:], limits, refuse=False)
