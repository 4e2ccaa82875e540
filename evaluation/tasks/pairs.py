"""Which of two answers a model finds better, and how far it is from a reference.

A row has the two answers of a pair, each after their prompt, as two segments. One pass of the
model, and one of the reference, give how likely the answers are in both, and of each token of
theirs the divergence KL(model | reference) of all that might have stood there.
"""

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from errors import UserError
from evaluation import intervals
from evaluation.intervals import Estimate
from evaluation.tasks.cases import Paired
from evaluation.tasks.judge import Progress
from evaluation.tasks.likelihood import rounded
from model import parameters
from model.decoder import Decoder
from model.parameters import Params
from sharding.placement import place_rows
from sharding.table import sharding
from training import chunks
from training.chunks import ALONE, Chunk
from training.loss import spread_out
from training.objectives.config import ObjectiveConfig
from training.objectives.divergences import reverse_kl
from training.objectives.likelihood import at_target
from training.objectives.pairs import pairs
from training.objectives.preferences import compared

_MEANS = ("margin", "reward_chosen", "reward_rejected", "log_prob_chosen", "log_prob_rejected")


class Reference(NamedTuple):
    """Attributes:
    outline: of a decoder with the model's tokens, on its mesh.
    params: its parameters.
    """

    outline: Decoder
    params: Params


class Judged(NamedTuple):
    """Attributes:
    name: of the task.
    objective: which says what a reward is.
    examples, questions: how many pairs, and of how many prompts they are.
    accuracy: how often the better answer has the higher reward, ties half, from 0 to 100; the
      interval is over questions.
    means: over pairs of rewards and log-likelihoods; and "kl", over the tokens of all answers of
      KL(model | reference), nats, where there is a reference.
    answers: of each pair what there is to say, JSON-able.
    seconds: that it took.
    """

    name: str
    objective: ObjectiveConfig
    examples: int
    questions: int
    accuracy: Estimate
    means: Mapping[str, float]
    answers: list[dict[str, Any]]
    seconds: float

    def __str__(self) -> str:
        value, low, high = self.accuracy
        kl = f", KL {self.means['kl']:.5f} nats a token" if "kl" in self.means else ""
        return (
            f"{self.name}: accuracy {value:.1f} ({low:.1f} to {high:.1f}), "
            f"margin {self.means['margin']:.4f}{kl}, "
            f"{self.examples:,} pairs of {self.questions:,} questions"
        )

    @property
    def value(self) -> float:
        """The accuracy."""
        return self.accuracy.value

    def line(self) -> dict[str, Any]:
        """The figures, JSON-able."""
        value, low, high = (round(x, 4) for x in self.accuracy)
        figures: dict[str, Any] = {"questions": self.questions}
        figures |= {"objective": self.objective.name, "beta": self.objective.beta}
        figures |= {"accuracy": value, "accuracy_95": [low, high]}
        return figures | {name: float(f"{x:.6g}") for name, x in self.means.items()}


def fitting(
    name: str, cases: Sequence[Paired], lengths: Mapping[str, int], refuse: bool
) -> list[Paired]:
    """The pairs of which no answer, with its prompt, is longer than a decoder takes.

    Args:
      name: of the task.
      cases: the pairs.
      lengths: what each decoder takes, by what it is called.
      refuse: one that is longer is refused, else it is left out.

    Raises:
      UserError: one is, or all are.
    """
    found = []
    who, limit = min(lengths.items(), key=lambda one: one[1])
    for case in cases:
        longest = max(one.positions for one in case.answers)
        if longest <= limit:
            found.append(case)
        elif refuse:
            raise UserError(
                f"{case.name!r} of task {name!r} is too long (its {longest} tokens exceed the "
                f"{limit} of {who}): leave such out by --too_long=drop"
            )
    if not found:
        raise UserError(f"all {len(cases)} pairs of task {name!r} are too long")
    return found


def judge(
    name: str,
    cases: Sequence[Paired],
    outline: Decoder,
    params: Params,
    reference: Reference | None,
    objective: ObjectiveConfig,
    mesh: Mesh,
    batch_size: int,
    progress: Progress = lambda what, done, total: None,
) -> Judged:
    """Judges a model by pairs.

    Args:
      name: of their task.
      cases: the pairs, at least one.
      outline, params: of the model.
      reference: what it is compared with; without one its likelihoods count alone.
      objective: of pairs, which says what a reward is.
      mesh: of all parameters.
      batch_size: pairs at a time.
      progress: told of every batch.
    """
    began = time.perf_counter()
    theirs = None if reference is None else reference.outline
    score = jax.jit(
        functools.partial(_score, outline, theirs, objective, mesh),
        out_shardings=sharding(mesh, ()),
    )
    asked = None if reference is None else reference.params
    # Pairs of a batch are about as long, and padded little.
    order = sorted(range(len(cases)), key=lambda i: (_width(cases[i]), i))
    pieces = 2 * mesh.shape["context"]  # see sharding/order.py
    parts = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    found: dict[str, np.ndarray] = {}
    for number, part in enumerate(parts):
        some = [cases[i] for i in part]
        some += some[-1:] * (batch_size - len(part))
        width = -(-rounded(_width(some[-1])) // pieces) * pieces
        make = functools.partial(_rows, some, width)
        batch = place_rows(mesh, batch_size, make)
        for key, values in jax.device_get(score(params, asked, batch)).items():
            found.setdefault(key, np.zeros(len(cases)))[part] = values[: len(part)]
        progress("weighing pairs", number + 1, len(parts))
    means = {key: float(found[key].mean()) for key in _MEANS}
    if reference is not None:
        means["kl"] = float(found["kl"].sum() / found["tokens"].sum())
    questions = {case.answers[0].prompt: 0 for case in cases}
    number_of = {question: i for i, question in enumerate(questions)}
    of_questions = np.zeros((len(questions), 2))
    for case, right in zip(cases, found["accuracy"], strict=True):
        of_questions[number_of[case.answers[0].prompt]] += right, 1
    accuracy = intervals.of_groups(of_questions)
    answers = [
        {"id": case.name, "inputs": case.asked, "chosen": case.chosen, "rejected": case.rejected}
        | {"right": float(found["accuracy"][i])}
        | {key: round(float(found[key][i]), 5) for key in _MEANS}
        for i, case in enumerate(cases)
    ]
    spent = time.perf_counter() - began
    found_of = len(cases), len(questions), accuracy
    return Judged(name, objective, *found_of, means, answers, spent)


def _width(case: Paired) -> int:
    return sum(one.positions for one in case.answers)


def _rows(cases: Sequence[Paired], width: int, rows: slice) -> dict[str, np.ndarray]:
    chosen = cases[rows]
    shape = (len(chosen), width)
    names = ("tokens", "targets", "segments", "positions")
    batch: dict[str, np.ndarray] = {name: np.zeros(shape, np.int32) for name in names}
    batch["weights"] = np.zeros(shape, np.float32)
    for row, case in enumerate(chosen):
        end = 0
        for segment, answer in enumerate(case.answers, 1):
            first, end = end, end + answer.positions
            place = row, slice(first, end)
            batch["tokens"][place], batch["targets"][place] = answer.ids[:-1], answer.ids[1:]
            batch["segments"][place] = segment
            batch["positions"][place] = np.arange(answer.positions)
            batch["weights"][place] = answer.learned[1:]
    return batch


def _score(
    outline: Decoder,
    theirs: Decoder | None,
    objective: ObjectiveConfig,
    mesh: Mesh,
    params: Params,
    asked: Params | None,
    batch: dict[str, jax.Array],
) -> dict[str, jax.Array]:
    """Of each row's pair, [B]: what `compared` says; "kl", the sum over the tokens of both answers,
    and how many "tokens" these are.
    """
    model, beside, of_theirs = parameters.bind(outline, params), ALONE, None
    batch = spread_out(mesh, batch)
    seen = batch["tokens"], batch["positions"], batch["segments"]
    if theirs is not None and asked is not None:
        other, of_theirs = parameters.bind(theirs, asked), theirs.config
        beside = ALONE._replace(table_VD=other.table[...], x_BTD=other.features(*seen).x_BTD)
    table_VD, x_BTD = model.table[...], model.features(*seen).x_BTD
    found: dict[str, jax.Array] = chunks.of_tokens(
        outline.config, mesh, _both, table_VD, x_BTD, batch["targets"], beside, of_theirs
    )
    weights_BT = batch["weights"]
    both = pairs(found["log_prob"], found["reference"], batch["segments"], weights_BT)
    rows = {key: x_BP[:, 0] for key, x_BP in compared(objective, both).items()}
    rows["kl"] = jnp.sum(found["kl"] * weights_BT, axis=1)
    return rows | {"tokens": jnp.sum(weights_BT, axis=1)}


def _both(chunk: Chunk) -> dict[str, jax.Array]:
    """Of each token [M] log P(target), of the model and the reference, and their divergence."""
    ours = at_target(chunk)
    if chunk.teacher_MV is None:
        return {"log_prob": ours, "reference": jnp.zeros_like(ours), "kl": jnp.zeros_like(ours)}
    theirs = at_target(chunk._replace(logits_MV=chunk.teacher_MV))
    log_q, log_p = (chunks.log_softmax(x, chunk.vocab) for x in (chunk.logits_MV, chunk.teacher_MV))
    kl = reverse_kl(log_p, log_q, chunk.vocab, 0.0).value_M
    return {"log_prob": ours, "reference": theirs, "kl": kl}
