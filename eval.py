"""Perplexity and bits per byte of a checkpoint on a held-out split.

    python eval.py --workdir=runs/python_stdlib

Prints one JSON line last: loss (nats a token), perplexity, bits_per_byte, tokens, bytes, step; of
a mixture also those of each corpus, as "corpora".
Every token of the split but BOS is predicted exactly once, so the figure depends neither on the
batch size nor on the mesh.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import dataclasses
import json
import sys
from typing import Any

import jax
from absl import flags

import commands
from checkpointing.workdir import Workdir
from configs import start_from
from data.config import DataConfig
from data.preparation import prepare_split
from data.windows import Windows
from errors import UserError
from evaluation.perplexity import evaluate, make_scorer, together
from evaluation.trained import Trained, load, parse_mesh, resolve, tokenizer_of
from reporting.progress import Progress
from training.state import shardings_of

WORKDIR = flags.DEFINE_string("workdir", "", "Directory of a run, or gs://BUCKET/FOLDER.")
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
MESH = flags.DEFINE_string(
    "mesh", "fsdp=-1", "Devices along each mesh axis, such as data=2,fsdp=4; -1 is the rest."
)


def main(job: commands.Job) -> None:
    rows = BATCH_SIZE.value or 0
    workdir, mesh = Workdir(WORKDIR.value), parse_mesh(MESH.value)
    step = resolve(workdir, STEP.value)
    commands.compare(job, "what to load", {"the step": str(step), **commands.given_flags()})
    job.watch.at("loading the checkpoint", job.watch.bounds.start)
    trained = load(workdir, step, mesh, rows, SEQUENCE_LENGTH.value or 0)
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
