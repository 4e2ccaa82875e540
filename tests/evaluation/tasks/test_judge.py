"""Figures of a task, by the likelihood of labels and by drawn answers, and how a run tells them."""

import json
from typing import Any

import numpy as np
import pytest
from flax import nnx

from cluster.interrupts import BrokenOff
from data import tasks
from data.tasks.task import Example, Task
from data.tokenizer import ByteTokenizer
from errors import UserError
from evaluation import intervals
from evaluation.tasks.cases import Case
from evaluation.tasks.during import During
from evaluation.tasks.judge import Judge, Model, mean
from model import parameters
from model.generation import Generator, Sampling
from reporting.metrics import MetricsFiles, read_metrics
from sharding.means import means
from tests.model.conftest import lively, small_config
from tests.training.sharded import mesh_of

LABELS = (" yes", " no", " no more")
TOKENIZER = ByteTokenizer()
CONFIG = small_config("llama", vocab_size=258, max_length=48)


def task(**values: Any) -> Task:
    return Task(source="", fields=lambda record: Example("", ""), max_tokens=6, **values)


def case(asked: str, label: int) -> Case:
    ids = (TOKENIZER.bos_id, *asked.encode())
    return Case(asked, asked, ids, LABELS[label], label)


CASES = [case(f"{'x' * i} {i}?", i % 3) for i in range(7)]


@pytest.fixture
def judge(monkeypatch):
    def make(cases=CASES, batch_size=3, name="mine", refuse=True, **values):
        made = task(**values)
        monkeypatch.setattr(tasks, "find", lambda name: made)
        mesh = mesh_of()
        outline = parameters.outline(CONFIG, means(mesh, CONFIG))
        model = Model(outline, mesh, None, TOKENIZER, frozenset())
        return Judge(name, "mine", cases, model, batch_size, refuse)

    return make


@pytest.fixture(scope="module")
def params():
    return nnx.to_pure_dict(nnx.state(lively(CONFIG), nnx.Param))


def test_accuracy_is_that_of_the_likeliest_label(judge, params):
    judged = judge(labels=LABELS, metrics=("accuracy",))(params)
    assert list(judged.estimates) == ["accuracy", "accuracy_per_token"]
    for suffix in ("", "_per_token"):
        hits = [one[f"likeliest{suffix}"] == one["targets"] for one in judged.answers]
        assert judged.estimates[f"accuracy{suffix}"] == intervals.of_share(sum(hits), 7)
    # " no" is followed by EOS, since " no more" begins with it.
    by_token = judge(labels=LABELS, metrics=("accuracy",))._labels.lengths
    assert by_token.tolist() == [4, 4, 8]
    line = judged.line()
    assert line["accuracy"] == pytest.approx(judged.estimates["accuracy"].value, abs=1e-4)
    assert str(judged).startswith("mine: accuracy ") and str(judged).endswith(", 7 examples")


@pytest.mark.slow
def test_answers_are_drawn_greedily_whatever_the_batch(judge, params):
    three = judge(metrics=("exact_match", "f1"))
    judged = three(params)
    assert list(judged.estimates) == ["exact_match", "f1"]
    model = parameters.outline(CONFIG)
    alone = Generator(model, params, Sampling(temperature=0))
    for one, answer in zip(CASES, judged.answers, strict=True):
        ids = list(alone(one.ids, max_tokens=6, seed=0, stop=TOKENIZER.eos_id))
        text = b"".join(TOKENIZER.token(i) for i in ids).decode(errors="replace")
        assert answer["answer"] == text
    assert judge(metrics=("f1",), batch_size=7)(params).answers == judged.answers
    # Other parameters in the place of these, without a new program.
    other = nnx.to_pure_dict(nnx.state(lively(CONFIG, 1), nnx.Param))
    assert three(other).answers != judged.answers
    assert three(params).answers == judged.answers


def test_what_cannot_be_judged(judge):
    with pytest.raises(UserError, match="the task 'mine' names no metric to be judged by"):
        judge()
    with pytest.raises(UserError, match="'mine' has no labels, whose likelihood is its 'accuracy'"):
        judge(metrics=("accuracy",))
    with pytest.raises(UserError, match="the label '' has no token"):
        judge(metrics=("accuracy",), labels=("a", ""))
    long = [*CASES, case("y" * 40, 0)]
    with pytest.raises(UserError, match=r"is too long \(its 41 tokens and 8 of the labels exceed"):
        judge(long, metrics=("accuracy",), labels=("a", "b" * 9))
    with pytest.raises(UserError, match=r"its 43 tokens and 6 of an answer exceed the model's 48"):
        judge([case("y" * 42, 0)], metrics=("f1",))
    fewer = judge(long, metrics=("accuracy",), labels=("a", "b" * 9), refuse=False)
    assert (fewer.left_out, len(fewer._cases)) == (1, 7)
    with pytest.raises(UserError, match="all 1 examples of task 'mine' are too long"):
        judge(long[-1:], metrics=("accuracy",), labels=("a", "b" * 9), refuse=False)


class _Nobody:
    """A watch that nothing is told."""

    class bounds:
        start = 1.0

    def at(self, what: str, bound: float) -> None:
        assert what.startswith("judging ")


def test_a_run_tells_once_of_a_step(judge, params, tmp_path):
    files = MetricsFiles(tmp_path, None, print)
    told: list[str] = []
    judges = [
        judge(labels=LABELS, metrics=("accuracy",), name="one"),
        judge(metrics=("f1",), name="two"),
    ]
    during = During(judges, files, told.append, _Nobody())
    with pytest.raises(BrokenOff):
        during(3, params, lambda: True)
    assert not list(read_metrics(tmp_path))
    first = during(3, params)
    during(3, params)  # after a resumption
    ((step, line),) = read_metrics(tmp_path)
    assert step == 3
    estimate = first[0].estimates["accuracy"]
    assert line["task/one/accuracy"] == estimate.value
    assert line["task/one/accuracy/low"] == estimate.low
    assert line["task/mean"] == pytest.approx(
        np.mean([estimate.value, first[1].estimates["f1"].value])
    )
    assert mean(first) == line["task/mean"]
    assert [one.split(" in ")[0] for one in told[:3]] == [
        f"step 3: {first[0]}",
        f"step 3: {first[1]}",
        f"step 3: mean of 2 tasks {line['task/mean']:.1f}",
    ]
    assert During([], files, told.append, _Nobody())(4, params) == []
    json.dumps(first[0].answers)
