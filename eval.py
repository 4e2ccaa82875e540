"""Perplexity and bits per byte of a checkpoint on a held-out split, or what it makes of a task.

    python eval.py --workdir=runs/python_stdlib
    python eval.py --workdir=WORKDIR --task=clinc150 --source="files:FOLDER/*.jsonl.gz"

Prints one JSON line last: loss (nats a token), perplexity, bits_per_byte, tokens, bytes, step; of
a mixture also those of each corpus, as "corpora".
Every token of the split but BOS is predicted exactly once, so the figure depends neither on the
batch size nor on the mesh. Of a task it prints its metrics, from 0 to 100, each with an interval of
95 %, and of pairs of answers how far the model is from its reference: docs/judging.md.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags
from etils import epath

import commands
from checkpointing.workdir import TOKENIZER, Workdir
from configs import start_from
from data import tasks
from data.config import Corpus, DataConfig
from data.documents import NO_SPLIT
from data.preparation import prepare_split
from data.windows import Windows
from errors import UserError
from evaluation.metrics import METRICS
from evaluation.perplexity import evaluate, make_scorer, together
from evaluation.tasks import pairs, reference
from evaluation.tasks.cases import Case, Paired, Reading, read, read_pairs
from evaluation.tasks.judge import Judge, Judged, Model, check, write
from evaluation.tasks.judge import Progress as Shows
from evaluation.tasks.pairs import Judged as JudgedPairs
from evaluation.tasks.pairs import Reference
from evaluation.trained import Trained, load, parse_mesh, resolve, tokenizer_of
from inference.loading import Loaded, load_run
from reporting.progress import Progress
from training.objectives.config import PREFERENCES, ObjectiveConfig
from training.state import shardings_of

WORKDIR = flags.DEFINE_string("workdir", "", "Directory of a run, or gs://BUCKET/FOLDER.")
BASE = flags.DEFINE_string(
    "base", "", "Where what a run began with is now, if part of it moved. Default: where it was."
)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate. Default: the newest.")
SPLIT = flags.DEFINE_string("split", None, "Split to evaluate on. Default: the run's eval_split.")
SOURCE = flags.DEFINE_string("source", None, "Other text, as data.source. Default: the run's.")
TEXT_KEY = flags.DEFINE_string("text_key", None, "Where it holds its text. Default: the run's.")
SEQUENCE_LENGTH = flags.DEFINE_integer(
    "sequence_length",
    None,
    "Tokens seen at once. Default: the run's.",
    lower_bound=2,
)
STRIDE = flags.DEFINE_integer(
    "stride", None, "Tokens between windows of a long document. Default: the run's."
)
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Windows at a time. Default: the run's.", lower_bound=1
)
TASK = flags.DEFINE_multi_string(
    "task", [], "NAME or NAME:ARGUMENT: be judged by this task; may be given several times."
)
EXAMPLES = flags.DEFINE_integer(
    "examples",
    0,
    "With --task: so many, as many of each label as of another, always the same. 0: all.",
    lower_bound=0,
)
TOO_LONG = flags.DEFINE_enum(
    "too_long", "refuse", ["refuse", "drop"], "With --task: examples longer than the model takes."
)
REFERENCE = flags.DEFINE_string(
    "reference",
    "",
    "With a --task of pairs: workdir of what the model is compared with. Default: what the run was "
    "compared with, if it was.",
)
OUT = flags.DEFINE_string("out", None, "With --task: a file for each example's answer, JSON lines.")
MESH = flags.DEFINE_string(
    "mesh", "fsdp=-1", "Devices along each mesh axis, such as data=2,fsdp=4; -1 is the rest."
)


def main(job: commands.Job) -> None:
    if not TASK.value:
        lone = {"examples": EXAMPLES.value, "out": OUT.value, "reference": REFERENCE.value}
        lone["too_long"] = flags.FLAGS["too_long"].present
        if given := [name for name, value in lone.items() if value]:
            raise UserError(f"--{given[0]} is of a task: give --task too")
        score_text(job)
    else:
        judge_tasks(job, TASK.value)


def judge_tasks(job: commands.Job, names: Sequence[str]) -> None:
    """Judges a checkpoint by the examples of tasks."""
    of_text = {"text_key": TEXT_KEY, "sequence_length": SEQUENCE_LENGTH, "stride": STRIDE}
    if given := [flag for flag, value in of_text.items() if value.value is not None]:
        raise UserError(f"--{given[0]} is of plain text: a task's examples have none; leave it out")
    if OUT.value is not None and len(names) > 1:
        raise UserError(f"--out is of one task, and {len(names)} are given: judge them one by one")
    data = {name: examples_of(name) for name in names}
    found = {name: tasks.find(name) for name in data}
    of_pairs = {name: task.pairs for name, task in found.items()}
    if REFERENCE.value and not all(of_pairs.values()):
        raise UserError(f"--reference is of pairs, and {names[0]!r} has none: leave it out")
    if len(set(of_pairs.values())) > 1:
        raise UserError("--task: tasks of pairs are judged apart from others: give one kind")
    draws = any(METRICS[metric].judge is not None for t in found.values() for metric in t.metrics)
    workdir, rows = Workdir(WORKDIR.value), BATCH_SIZE.value or 0
    # A text is drawn token by token: the mesh made for that gathers no weights.
    mesh = None if draws and not flags.FLAGS["mesh"].present else parse_mesh(MESH.value)
    step = resolve(workdir, STEP.value)
    commands.compare(job, "what to load", {"the step": str(step), **commands.given_flags()})
    job.watch.at("loading the checkpoint", job.watch.bounds.start)
    loaded = load_run(workdir, step, mesh, None if draws else rows, BASE.value)
    config = loaded.trained.config
    job.watch.bounds, size = config.watch, rows or config.evaluation.batch_size
    where = {name: corpus_of(name, one, loaded, workdir) for name, one in data.items()}
    # Dialogues are written as the run wrote them: with the template in its own folder.
    how = Reading(loaded.tokenizer, str(workdir.path / TOKENIZER), "", EXAMPLES.value)

    def read_all(progress: Callable[[str, int, int], None]) -> dict[str, Any]:
        readers: Any = {name: read_pairs if found[name].pairs else read for name in found}
        return {name: readers[name](*where[name], how, progress) for name in found}

    cases = commands.in_turn(job, read_all)
    seen = {
        f"the examples of {name}": hashlib.sha256(repr(some).encode()).hexdigest()
        for name, some in cases.items()
    }
    judge: Callable[[str, Any, Any], Judged | JudgedPairs]
    if any(of_pairs.values()):
        beside = reference.On(loaded.trained, loaded.tokenizer, parse_mesh(MESH.value), size)
        other, start = None, reference.find(beside, REFERENCE.value, BASE.value)
        seen["the reference"] = "none" if start is None else start.identity
        commands.compare(job, "what to evaluate", seen)
        if start is not None:
            job.watch.at("reading the reference", job.watch.bounds.start)
            other = reference.read(beside, start)
        judge = functools.partial(weigh_pairs, loaded, other, size)
    else:
        commands.compare(job, "what to evaluate", seen)
        judge = functools.partial(weigh_answers, loaded, size)
    values = [
        tell(job, name, where[name][1], step, len(some), functools.partial(judge, name, some))
        for name, some in cases.items()
    ]
    if jax.process_index() == 0 and len(values) > 1:
        print(json.dumps({"tasks": len(values), "mean": round(sum(values) / len(values), 4)}))
        sys.stdout.flush()


def examples_of(name: str) -> DataConfig:
    """The data of a task, as the task says it, or with what the flags change.

    Raises:
      UserError: there is no such task, or nothing to judge by.
    """
    try:
        task = tasks.find(name)
        source = SOURCE.value or "python_stdlib"  # which stands for the task's own
        data = DataConfig(source, sequence_length=2, packing="best_fit", task=name)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if not task.pairs:
        check(name, task)
    return data


def corpus_of(name: str, data: DataConfig, loaded: Loaded, workdir: Workdir) -> tuple[Corpus, str]:
    """Where the examples of a task are, and of which split.

    Raises:
      UserError: the run had none held out.
    """
    config = loaded.trained.config
    same = {key: getattr(config.data, key) for key in ("data_dir", "invalid_utf8")}
    (corpus,) = dataclasses.replace(data, **same).corpora()
    if SOURCE.value is None:  # where the run learned the task from
        learned = [one for one in config.data.corpora() if one.task == name]
        corpus = (learned or [corpus])[0]
    split = SPLIT.value or corpus.eval_split
    if split == NO_SPLIT:
        raise UserError(f"the run was not evaluated on {name!r}: give --split, or --source")
    return corpus, split


def weigh_answers(
    loaded: Loaded, size: int, name: str, cases: list[Case], progress: Shows
) -> Judged:
    """Judges by a task's own metrics, `size` cases at a time."""
    trained = loaded.trained
    model = Model(trained.outline, trained.mesh, None, loaded.tokenizer, loaded.stop_ids)
    refuse = TOO_LONG.value == "refuse"
    return Judge(name, name, cases, model, size, refuse)(trained.params, progress)


def weigh_pairs(
    loaded: Loaded,
    other: Reference | None,
    size: int,
    name: str,
    cases: list[Paired],
    progress: Shows,
) -> JudgedPairs:
    """Judges by pairs of answers, `size` at a time, beside a reference."""
    trained = loaded.trained
    lengths = {"the model": trained.config.model.max_length}
    if other is not None:
        lengths["the reference"] = other.outline.config.max_length
    objective = trained.config.objective
    if objective.name not in PREFERENCES:
        objective = ObjectiveConfig("dpo")
    cases = pairs.fitting(name, cases, lengths, TOO_LONG.value == "refuse")
    model = trained.outline, trained.params
    return pairs.judge(name, cases, *model, other, objective, trained.mesh, size, progress)


def tell(
    job: commands.Job,
    name: str,
    split: str,
    step: int,
    cases: int,
    judge: Callable[[Shows], Judged | JudgedPairs],
) -> float:
    """Judges by one task and prints what was found; returns the first of its figures."""
    shown: dict[str, Progress] = {}

    def progress(what: str, done: int, total: int) -> None:
        job.watch.at(f"{what}, batch {done} of {total}", job.watch.bounds.start)
        shown.setdefault(what, Progress(total, unit="batch")).update(done)

    job.watch.at(f"judging by {name}", job.watch.bounds.start)
    judged = judge(progress)
    for one in shown.values():
        one.close()
    if OUT.value is not None:
        write(judged.answers, epath.Path(OUT.value))
    if jax.process_index() == 0:
        print(str(judged), file=sys.stderr)
        about: dict[str, Any] = {"task": name, "split": split, "examples": judged.examples}
        if left_out := cases - judged.examples:
            about["too_long"] = left_out
        if labels := tasks.find(name).labels:
            about["labels"] = len(labels)
        about |= judged.line()
        print(json.dumps(about | {"step": step, "seconds": round(judged.seconds, 3)}))
        sys.stdout.flush()
    return judged.value


def score_text(job: commands.Job) -> None:
    """Scores the text of a split."""
    rows = BATCH_SIZE.value or 0
    workdir, mesh = Workdir(WORKDIR.value), parse_mesh(MESH.value)
    step = resolve(workdir, STEP.value)
    commands.compare(job, "what to load", {"the step": str(step), **commands.given_flags()})
    job.watch.at("loading the checkpoint", job.watch.bounds.start)
    trained = load(workdir, step, mesh, rows, SEQUENCE_LENGTH.value or 0, BASE.value)
    config, job.watch.bounds = trained.config, trained.config.watch
    data = data_of(trained, workdir)
    stores, dataset = commands.in_turn(
        job,
        lambda progress: prepare_split(
            data,
            SPLIT.value,
            tokenizer_of(workdir),
            progress,
        ),
    )
    if SOURCE.value is None and dataset != trained.record.dataset:
        print(
            "note: this is not the data that the run had (another Python version?): its held-out "
            "documents may be among those trained on",
            file=sys.stderr,
        )
    length = data.sequence_length
    stride = STRIDE.value or config.evaluation.stride or None
    if stride is not None and not 1 <= stride <= length:
        raise UserError(f"--stride={stride}: give 1 to {length}, the sequence length")
    seen = {f"the data of {name}": store.fingerprint for name, store in stores.items()}
    commands.compare(job, "what to evaluate", seen)
    windows = {
        name: Windows(store, length, rows or config.evaluation.batch_size, stride)
        for name, store in stores.items()
    }
    score = make_scorer(trained.outline, trained.mesh, shardings_of(trained.params))
    shown = Progress(sum(some.n_batches for some in windows.values()), unit="batch")
    job.watch.at("compiling", job.watch.bounds.start)

    before = 0

    def progress(done: int, total: int) -> None:
        job.watch.at(f"evaluating batch {done} of {total}", job.watch.bounds.step)
        shown.update(before + done)

    results = {}
    for name, some in windows.items():
        results[name] = evaluate(score, trained.params, some, trained.mesh, progress)
        before += some.n_batches
    shown.close()
    if jax.process_index() == 0:
        corpora = {"corpora": results} if len(results) > 1 else {}
        print(json.dumps({**together(results), "step": trained.step, **corpora}))
        sys.stdout.flush()


def data_of(trained: Trained, workdir: Workdir) -> DataConfig:
    """What to evaluate on: the run's data, with what the flags change.

    Raises:
      UserError: a flag that cannot be, or one is missing for a model that has no data.
    """
    data, model = start_from.data_of(trained.config, workdir), trained.config.model
    length = SEQUENCE_LENGTH.value or data.sequence_length
    if trained.record.imported and None in (SOURCE.value, SEQUENCE_LENGTH.value):
        raise UserError(
            f"{workdir} has a converted model, which knows of no data: give --source (such as "
            f"files:PATTERN), --split and --sequence_length (at most {model.max_length})"
        )
    if length > model.max_length:
        raise UserError(f"--sequence_length={length}: the model takes {model.max_length} at most")
    changes: dict[str, Any] = {"sequence_length": length}
    if SOURCE.value is not None:
        changes |= {"source": SOURCE.value, "mixture": {}}
    if TEXT_KEY.value is not None:
        changes["text_key"] = TEXT_KEY.value
    try:
        return dataclasses.replace(data, **changes)
    except ValueError as error:
        raise UserError(f"--{error}") from None


if __name__ == "__main__":
    commands.run(main, required=("workdir",), check=lambda: Workdir(WORKDIR.value))
