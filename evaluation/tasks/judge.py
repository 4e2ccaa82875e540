"""A model is judged by a task: its labels weighed, or answers drawn, and metrics of them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from cluster.interrupts import BrokenOff, Vote
from data import tasks
from data.tasks.task import Task
from data.tokenizer import Tokenizer
from errors import UserError
from evaluation import intervals, metrics
from evaluation.decoding import to_decode
from evaluation.intervals import Estimate
from evaluation.metrics import METRICS
from evaluation.tasks.cases import Case
from evaluation.tasks.likelihood import Likelihoods, choose
from evaluation.tasks.trie import Trie, plant
from inference.texts import Ending, continued
from model.decoder import Decoder
from model.generation import Generator, Sampling
from model.parameters import Params
from sharding.config import MeshConfig
from sharding.table import sharding
from training.state import abstract_params, shardings_of

Progress = Callable[[str, int, int], None]
"""Told what is done, how much of it is, and of how much."""


class Model(NamedTuple):
    """What is judged, but for its parameters.

    Attributes:
      outline: the decoder.
      mesh: of the parameters.
      layout: of that mesh, see sharding/means.py.
      tokenizer: of the model.
      stop_ids: that end a text.
    """

    outline: Decoder
    mesh: Mesh
    layout: MeshConfig | None
    tokenizer: Tokenizer
    stop_ids: frozenset[int]


class Judged(NamedTuple):
    """Attributes:
    name: of the task.
    examples: their number.
    estimates: by the metric's name; the first is the task's own.
    answers: of each case what there is to say, JSON-able.
    seconds: that it took.
    """

    name: str
    examples: int
    estimates: Mapping[str, Estimate]
    answers: list[dict[str, Any]]
    seconds: float

    def __str__(self) -> str:
        found = ", ".join(
            f"{name} {one.value:.1f} ({one.low:.1f} to {one.high:.1f})"
            for name, one in self.estimates.items()
        )
        return f"{self.name}: {found}, {self.examples:,} examples"

    @property
    def value(self) -> float:
        """Of the task's own metric."""
        return next(iter(self.estimates.values())).value

    def line(self) -> dict[str, Any]:
        """The estimates, JSON-able: NAME, and NAME_95, the ends of its interval."""
        line: dict[str, Any] = {}
        for name, one in self.estimates.items():
            line |= {
                name: round(one.value, 4),
                f"{name}_95": [round(one.low, 4), round(one.high, 4)],
            }
        return line


def check(name: str, task: Task) -> None:
    """Refuses a task that nothing can be judged by, before anything is read.

    Raises:
      UserError: it names no metric, or one that there is not.
    """
    if not task.metrics:
        raise UserError(f"the task {name!r} names no metric to be judged by: give its Task some")
    metrics.check(task.metrics)


class Judge:
    """Judges a model by cases of a task.

    Args:
      name: for people, and in the metrics.
      task: see data.tasks.find.
      cases: from evaluation.tasks.cases.read.
      model: what is judged.
      batch_size: cases at a time.
      refuse: a case that is longer than the model takes is refused, else it is left out.

    Attributes:
      name: as given.
      left_out: cases that were too long.

    Raises:
      UserError: the task names no metric, one that there is not or that it has no labels for, a
        label that cannot be, or a case, or each of them, is longer than the model takes.
    """

    def __init__(
        self,
        name: str,
        task: str,
        cases: Sequence[Case],
        model: Model,
        batch_size: int,
        refuse: bool = True,
    ) -> None:
        self.name, self._task = name, tasks.find(task)
        self._model, self._batch_size = model, batch_size
        check(name, self._task)
        names = self._task.metrics
        self._drawn = [one for one in names if METRICS[one].judge is not None]
        self._likelihoods: Likelihoods | None = None
        self._generator: Generator | None = None
        if len(self._drawn) < len(names):
            self._labels = self._tree()
            shardings = shardings_of(abstract_params(model.outline, model.mesh))
            self._likelihoods = Likelihoods(
                model.outline.config, model.mesh, model.layout, shardings, self._labels, batch_size
            )
        self._cases = [case for case in cases if not self._too_long(case, refuse)]
        self.left_out = len(cases) - len(self._cases)
        if not self._cases:
            raise UserError(f"all {len(cases)} examples of task {name!r} are too long")

    def _too_long(self, case: Case, refuse: bool) -> bool:
        limit = self._model.outline.config.max_length
        told = self._likelihoods.too_long(case.ids) if self._likelihoods else ""
        if not told and self._drawn and len(case.ids) + self._task.max_tokens > limit:
            told = (
                f"its {len(case.ids)} tokens and {self._task.max_tokens} of an answer exceed the "
                f"model's {limit}"
            )
        if told and refuse:
            raise UserError(
                f"{case.name!r} of task {self.name!r} is too long ({told}): leave such out by "
                "--too_long=drop"
            )
        return bool(told)

    def _tree(self) -> Trie:
        names, tokenizer = self._task.labels, self._model.tokenizer
        if not names:
            raise UserError(
                f"the task {self.name!r} has no labels, whose likelihood is its 'accuracy': give "
                "its Task labels, or another metric"
            )
        labels = [tuple(map(int, ids)) for ids in tokenizer.encode_inner(names)]
        return plant(names, labels, tokenizer.eos_id)

    def __call__(
        self,
        params: Params,
        progress: Progress = lambda what, done, total: None,
        vote: Vote | None = None,
    ) -> Judged:
        """Judges parameters.

        Args:
          params: on the model's mesh.
          progress: told of every batch.
          vote: see evaluation.perplexity.evaluate.

        Raises:
          BrokenOff: the vote was to stop.
        """
        began = time.perf_counter()
        found: dict[str, Estimate] = {}
        answers: list[dict[str, Any]] = [
            {"id": case.name, "inputs": case.asked, "targets": case.target} for case in self._cases
        ]
        if self._likelihoods is not None:
            found |= self._by_likelihood(params, progress, vote, answers)
        if self._drawn:
            texts = self._draw(params, progress, vote)
            targets = [case.target for case in self._cases]
            for answer, text in zip(answers, texts, strict=True):
                answer["answer"] = text
            for name in self._drawn:
                judge = METRICS[name].judge
                assert judge is not None
                found |= judge(texts, targets)
        first = [one for name in self._task.metrics for one in METRICS[name].names]
        found = {name: found[name] for name in first}
        return Judged(self.name, len(self._cases), found, answers, time.perf_counter() - began)

    def _by_likelihood(
        self,
        params: Params,
        progress: Progress,
        vote: Vote | None,
        answers: list[dict[str, Any]],
    ) -> dict[str, Estimate]:
        assert self._likelihoods is not None

        def told(done: int, total: int) -> None:
            progress("weighing labels", done, total)

        sums = self._likelihoods(params, [case.ids for case in self._cases], told, vote)
        forms = {"": sums, "_per_token": sums / self._labels.lengths}
        found = {}
        for suffix, scores in forms.items():
            choices = [
                choose(row, case.label) for row, case in zip(scores, self._cases, strict=True)
            ]
            hits = sum(choice.share for choice in choices)
            found[f"accuracy{suffix}"] = intervals.of_share(hits, len(choices))
            for answer, choice in zip(answers, choices, strict=True):
                answer[f"likeliest{suffix}"] = self._task.labels[choice.label]
                answer[f"right{suffix}"] = choice.share
        for answer, row, case in zip(answers, sums, self._cases, strict=True):
            answer["logprob"] = round(float(row[case.label]), 5)
            answer["likeliest_logprob"] = round(float(np.max(row)), 5)
        return found

    def _draw(self, params: Params, progress: Progress, vote: Vote | None) -> list[str]:
        """The likeliest token after the other, for each case."""
        model = self._model
        rounds = 1 if model.layout is None else model.layout.rounds
        outline, params, mesh = to_decode(model.outline, params, model.mesh, rounds)
        if self._generator is None:
            how = Sampling(temperature=0)
            self._generator = Generator(outline, params, how, sharding(mesh, ()))
        else:
            self._generator.take(params)
        stops = model.stop_ids | {model.tokenizer.eos_id}
        ending = Ending(self._task.max_tokens, frozenset(stops))
        order = sorted(range(len(self._cases)), key=lambda i: (len(self._cases[i].ids), i))
        texts = [""] * len(order)
        size, stop = self._batch_size, False
        for begin in range(0, len(order), size):
            if stop:
                raise BrokenOff
            stop = bool(vote()) if vote is not None else False
            progress("drawing answers", begin // size + 1, -(-len(order) // size))
            part = order[begin : begin + size]
            prompts = [self._cases[i].ids for i in part]
            drawn = continued(self._generator, model.tokenizer, prompts, ending, batch_size=size)
            for i, text in zip(part, drawn, strict=True):
                texts[i] = text.text
        self._generator.drop()
        return texts


def write(answers: Sequence[Mapping[str, Any]], path: epath.Path) -> None:
    """Writes what was answered to each case, a JSON line each, on the first process.

    Raises:
      UserError: it cannot be written there.
    """
    if jax.process_index():
        return
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers)
    try:
        path.write_text(lines)
    except OSError as error:
        raise UserError(f"--out={path} cannot be written ({error.strerror})") from error


def mean(judged: Sequence[Judged]) -> float:
    """The mean over tasks of the first metric of each."""
    return float(np.mean([one.value for one in judged]))
