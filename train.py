"""Pretrains a decoder, or goes on where it stopped.

    python train.py --config=configs/python_stdlib.py --workdir=runs/python_stdlib

The run is a function of its config: the same command again resumes from the newest checkpoint in
the workdir, and leaves there what an uninterrupted run would have left.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from absl import flags
from jax.sharding import Mesh

import commands
from checkpointing import continuation, record
from checkpointing.checkpoints import Checkpoints
from checkpointing.workdir import REPORT, TOKENIZER, Hold, Workdir
from cluster.agreement import code_fingerprint
from cluster.interrupts import BrokenOff
from configs import door
from configs import flags as config_flags
from data.prepare import Prepared, prepare
from data.stream import Stream
from data.windows import Windows
from errors import UserError
from evaluation.held_out import HeldOut
from evaluation.perplexity import make_scorer
from model import parameters
from reporting import environment, summary
from reporting.hardware import peak_flops
from reporting.metrics import METRICS, MetricsFiles
from reporting.profile import Profile
from reporting.progress import Progress, duration
from reporting.recorder import Recorder
from sharding.feed import Feed
from sharding.mesh import make_mesh
from sharding.placement import abstract_rows, constrainer
from sharding.table import validate
from training.config import RunConfig
from training.optimizer import learning_rate, make_optimizer
from training.state import TrainState, abstract_state, fresh_state, shardings_of
from training.step import make_step

CONFIG = config_flags.define()
WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run, or gs://BUCKET/FOLDER.")
PROFILE = flags.DEFINE_string(
    "profile", None, "FIRST:LAST, steps to trace into WORKDIR/profile (TensorBoard, Perfetto)."
)


def main(job: commands.Job) -> None:
    began = time.perf_counter()
    config = door.read(CONFIG.value, jax.default_backend())
    job.watch.bounds = config.watch
    workdir = Workdir(WORKDIR.value)
    profile = Profile(PROFILE.value, config.train.steps, workdir.local)
    mesh = lay_out(config, first=job.others.index == 0)
    lock = workdir.hold() if job.others.index == 0 else None
    try:
        commands.share_compilation_cache(job, workdir.path)
        compare_processes(job, config, workdir)
        data = commands.in_turn(
            job,
            lambda progress: prepare(
                config.data, progress, lambda tokenizer: door.check_tokenizer(config, tokenizer)
            ),
        )
        with workdir.reached():
            train(job, config, mesh, data, workdir, lock, profile, began)
    finally:
        if lock is not None:
            lock.release()


def lay_out(config: RunConfig, first: bool) -> Mesh:
    """The mesh of the run; one that does not fit is refused before anything slow happens.

    The vocabulary is not known yet, but it will be a multiple of vocab_multiple: a mesh that
    divides that will do.

    Args:
      config: of the run.
      first: whether this process says what is to be said of the layout.
    """
    outline = parameters.outline(dataclasses.replace(config.model, vocab_size=1))
    batches = {
        "train.batch_size / train.accumulation": config.train.batch_size
        // config.train.accumulation,
        "evaluation.batch_size": config.evaluation.batch_size,
    }
    try:
        mesh = make_mesh(config.mesh)
        axes, shapes = parameters.logical_axes(outline), parameters.shapes(outline)
        notes = validate(mesh, axes, shapes, batches)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None
    for note in notes if first else ():
        print(f"note: {note}", file=sys.stderr)
    return mesh


def compare_processes(job: commands.Job, config: RunConfig, workdir: Workdir) -> None:
    """Ends all processes, before anything slow happens, if they were not started alike."""
    keys = continuation.flat(config.to_dict())
    facts = {f"config.{key}": repr(value) for key, value in keys.items()}
    facts |= versions()
    facts |= commands.given_flags()
    facts["the workdir"] = workdir.proof(job.others)
    commands.compare(job, "the start", facts)


def versions() -> dict[str, str]:
    """What the numbers of a step depend on besides config, data and mesh."""
    return environment.versions() | {"the code": code_fingerprint(Path(__file__).parent)}


def train(
    job: commands.Job,
    config: RunConfig,
    mesh: Mesh,
    data: Prepared,
    workdir: Workdir,
    lock: Hold | None,
    profile: Profile,
    began: float,
) -> None:
    """Runs a run from where it stands to its end, or to a signal."""
    watch, first = job.watch, job.others.index == 0
    ran_on = environment.describe()  # now: the code may be changed while it runs
    config = door.with_vocabulary(config, data.tokenizer.vocab_size)
    steps, rows, length = config.train.steps, config.train.batch_size, config.data.sequence_length
    outline = parameters.outline(config.model, constrainer(mesh))
    stream = Stream(data.train, length, rows, config.data.seed)
    tx, schedule = make_optimizer(config.optimizer, steps), learning_rate(config.optimizer, steps)
    abstract = abstract_state(tx, outline, mesh)
    checkpoints = Checkpoints(workdir.path, config.checkpoint.keep, watch.bounds.save)
    start = checkpoints.latest() or 0
    finished = start == steps and (workdir.path / REPORT).exists()
    seen = {
        "the newest checkpoint": str(start),
        "the report": "written" if finished else "not written",
        "the data stream": stream.fingerprint,
        "the held-out data": data.eval.fingerprint,
    }
    commands.compare(job, "what to do", seen)
    progress = Progress(steps, start) if first else None
    say: Callable[[str], None] = progress.note if progress is not None else lambda text: None
    profile.begin(start, say)

    # What the workdir holds must be this very run.
    now = record.make(config, stream, data, versions(), environment.commit())
    before = go_on(checkpoints, start, workdir, now, say)
    if finished:
        say(f"all {steps} steps are done: see {workdir}/{REPORT}, or raise config.train.steps")
        return
    files = None
    if first:
        workdir.fetch(*METRICS)
        files = MetricsFiles(workdir.local, None if before is None else start, say)
        workdir.write_run(now.to_dict())
        data.tokenizer.save(workdir.local / TOKENIZER)
        workdir.publish(TOKENIZER)
        (workdir.path / REPORT).unlink(missing_ok=True)  # it is of fewer steps

    watch.at("restoring the state" if start else "initializing the state", watch.bounds.start)
    if start:
        state = checkpoints.state(start, abstract)
        say(f"resuming after step {start} of {steps} in {workdir}")
    else:
        state = initialize(config, tx, abstract)
    evaluated = before is not None and before.evaluated

    say(describe(config, data, stream))
    stride, every = config.evaluation.stride or None, config.evaluation.every
    eval_rows = config.evaluation.batch_size
    budget = Windows(data.eval, length, eval_rows, stride, config.evaluation.max_tokens)
    watch.at("compiling", watch.bounds.start)
    step = compiled(
        make_step(outline, tx, schedule, config.train, mesh, abstract),
        abstract,
        abstract_rows(mesh, rows, stream.batch),
    )
    score = make_scorer(outline, mesh, shardings_of(abstract.params))
    if every:
        score = compiled(score, abstract.params, abstract_rows(mesh, eval_rows, budget.batch))
    held_out = HeldOut(score, mesh, files, say, watch)
    peak = peak_flops(jax.devices()[0])
    recorder = Recorder(
        files,
        progress,
        tokens=before.tokens if start and before is not None else 0,
        tokens_per_step=rows * length,
        flops_per_step=config.model.flops_per_token(length) * rows * length / mesh.size,
        peak_flops=peak[0] if peak else None,
    )

    count = start
    vote = job.interrupts.voter(mesh)
    feed = Feed(mesh, rows, stream.batch, start, steps)
    with job.interrupts.noted(), profile:
        while True:
            last = recorder.stop or count == steps
            if every and count and count % every == 0 and not (evaluated or last):
                recorder.drain()
                with contextlib.suppress(BrokenOff):
                    held_out(count, state.params, budget, vote)
                    evaluated = True
                last = not evaluated
                recorder.restart_clock()
            if count > start and (last or count % config.checkpoint.every == 0):
                watch.at(f"saving step {count}", watch.bounds.save)
                recorder.drain()
                if lock is not None:
                    lock.check()
                    workdir.publish(*METRICS)
                reached = now.after(count, recorder.tokens, evaluated)
                checkpoints.save(count, state, reached.to_dict())
                recorder.restart_clock()
            if last:
                break
            watch.at(f"step {count + 1}", watch.bounds.step)
            batch, waited = feed.next()
            profile.before(count + 1)
            state, metrics = step(state, batch)
            count, evaluated = count + 1, False
            recorder.add(count, metrics, waited, vote())
            checkpoints.raise_errors()
            if count == start + 1:
                recorder.drain()
                say(f"first step {duration(time.perf_counter() - began)} after the start")
            if traced := profile.after(count, metrics):
                say(f"trace of the steps up to {count}: {traced}")
                workdir.publish(traced.name)
                recorder.restart_clock()
        watch.at("waiting for the last checkpoint", watch.bounds.save)
        checkpoints.wait()

    if count < steps:
        if progress is not None:
            progress.close()
        say(f"stopped by {job.interrupts.signal or 'another process'}; step {count} is saved.")
        say("The same command goes on from there.")
        return
    job.interrupts.obey()  # it came too late for the loop: all steps are saved, the rest can wait

    say("evaluating the whole held-out split, and writing the report")
    final = held_out(count, state.params, Windows(data.eval, length, eval_rows, stride))
    watch.at("drawing samples", watch.bounds.start)
    samples = summary.draw_samples(config, outline, state.params, data, mesh)
    watch.at("writing the report", watch.bounds.save)
    if files is not None and progress is not None:
        files.close()
        progress.close()
        summary.print_result(final, data)
        final |= {"step": count}
        summary.report(workdir.local, workdir.path.name, config, data, final, samples, ran_on)
        workdir.publish(*METRICS, REPORT)
        print(f"report: {workdir}/{REPORT}")
    checkpoints.close()


def go_on(
    checkpoints: Checkpoints,
    start: int,
    workdir: Workdir,
    now: record.Record,
    say: Callable[[str], None],
) -> record.Record | None:
    """The record of the run that is to go on from step `start`; None in a fresh workdir.

    Raises:
      UserError: it is another run than `now`.
    """
    saved = checkpoints.run(start) if start else workdir.read_run()
    if saved is None:
        return None
    before, notes = record.read(saved, workdir)
    for note in notes:
        say(note)
    for change in continuation.check(before, now, workdir):
        say(f"changed since the run began: {change}")
    return before


def initialize(
    config: RunConfig, tx: optax.GradientTransformation, abstract: TrainState
) -> TrainState:
    """The state before the first step: on no device larger than its shard."""
    make = jax.jit(
        lambda: fresh_state(config.model, tx, config.train.seed),
        out_shardings=shardings_of(abstract),
    )
    return make()


def compiled(function: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """A jitted function, compiled now: a signal that comes meanwhile ends the process at once.

    Args:
      function: jitted.
      like: the shapes, dtypes and shardings of its arguments.
    """
    return function.lower(*like).compile()  # type: ignore[attr-defined]


def describe(config: RunConfig, data: Prepared, stream: Stream) -> str:
    """The run in a few lines, before it starts."""
    train, model = data.description["train"], config.model
    lines = [
        f"data: {data.description['dataset']}: {train['documents']:,} documents, "
        f"{train['tokens']:,} tokens of {train['text_bytes'] / train['tokens']:.2f} bytes to train "
        f"on, {data.description['eval']['documents']:,} documents held out",
        f"model: {model.num_params():,} parameters, {model.dtype}; "
        f"{config.train.steps:,} steps of {config.train.batch_size} x "
        f"{config.data.sequence_length} tokens, {stream.epochs(config.train.steps):.2f} epochs",
        f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}; compiling the step",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    commands.run(main, required=("config", "workdir"), check=lambda: Workdir(WORKDIR.value))
