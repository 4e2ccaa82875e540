"""Pretrains a decoder, or goes on where it stopped.

    python train.py --config=configs/python_stdlib.py --workdir=runs/python_stdlib

The run is a function of its config: the same command again resumes from the newest checkpoint in
the workdir, and leaves there what an uninterrupted run would have left.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import contextlib
import dataclasses
import hashlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags

import beginning
import commands
from checkpointing import continuation, record, starting, teacher
from checkpointing.checkpoints import Checkpoints
from checkpointing.workdir import PUBLISHED, REPORT, TOKENIZER, Hold, Workdir
from cluster.agreement import code_fingerprint
from cluster.interrupts import BrokenOff
from configs import door, layouts, start_from
from configs import flags as config_flags
from data.preparation import chat_files, prepare
from data.stream import stream_of
from data.tokenizing.published import Published
from evaluation.asking import Asking
from evaluation.decoding import to_decode
from evaluation.held_out import HeldOut
from evaluation.perplexity import Rows, Scorer, make_scorer
from evaluation.tasks.during import During, cases_of
from evaluation.tasks.judge import Judge, Judged, Model
from model.parameters import Params, joined
from planning.hardware import memory_here, name_here
from planning.layout import lay_out
from reporting import environment, outlook, summary
from reporting.hardware import peak_flops
from reporting.metrics import METRICS, MetricsFiles, check_fresh
from reporting.profile import Profile
from reporting.progress import Progress, duration
from reporting.recorder import Recorder, Work
from run import Run
from sharding.feed import Feed
from sharding.layer_order import LayerOrder
from sharding.placement import abstract_rows
from training.assembly import assemble
from training.config import RunConfig
from training.fields import flat
from training.objectives.config import PREFERENCES
from training.objectives.objective import objective
from training.state import Fixed, shardings_of, stacked

CONFIG = config_flags.define()
WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run, or gs://BUCKET/FOLDER.")
PROFILE = flags.DEFINE_string(
    "profile", None, "FIRST:LAST, steps to trace into WORKDIR/profile (TensorBoard, Perfetto)."
)


def main(job: commands.Job) -> None:
    began = time.perf_counter()
    workdir = Workdir(WORKDIR.value)
    starting.check(workdir)
    given = config_flags.given()
    chosen, layout = layouts.applied(CONFIG.value, name_here(), given)
    chosen, taken = start_from.applied(chosen, given, workdir)
    config = door.read(chosen, jax.default_backend())
    start_from.check(config)
    for line in filter(None, (layout, taken)) if job.others.index == 0 else ():
        print(line, file=sys.stderr)
    job.watch.bounds = config.watch
    profile = Profile(PROFILE.value, config.train.steps, workdir.local)
    mesh = lay_out(config, memory=memory_here())
    lock = workdir.hold() if job.others.index == 0 else None
    try:
        commands.share_compilation_cache(job, workdir.path)
        compare_processes(job, config, workdir)
        data = commands.in_turn(
            job,
            lambda progress: prepare(
                start_from.data_of(config, workdir),
                progress,
                lambda tokenizer: door.check_tokenizer(config, tokenizer),
            ),
        )
        config = door.with_vocabulary(config, data.tokenizer.vocab_size)
        door.check_pairs(config, {one.name: one.train.unit > 1 for one in data.corpora})
        stream = stream_of(config.data, config.train.batch_size, data)
        noted = workdir.read_run() or {}
        asked = teacher.find(config, mesh, noted.get("teacher", ""))
        in_step = None if asked is None or config.objective.stored else asked.here.outline
        made = assemble(config, mesh, in_step)
        first = job.others.index == 0
        asking = asked and Asking(asked, config, mesh, job.watch, first)
        with workdir.reached():
            run = Run(job, config, mesh, workdir, data, stream, made, asking)
            train(run, lock, profile, began)
    finally:
        if lock is not None:
            lock.release()


def compare_processes(job: commands.Job, config: RunConfig, workdir: Workdir) -> None:
    """Ends all processes, before anything slow happens, if they were not started alike."""
    keys = flat(config.to_dict())
    facts = {f"config.{key}": repr(value) for key, value in keys.items()}
    facts |= versions()
    facts |= commands.given_flags()
    facts["the workdir"] = workdir.proof(job.others)
    commands.compare(job, "the start", facts)


def versions() -> dict[str, str]:
    """What the numbers of a step depend on besides config, data and mesh."""
    return environment.versions() | {"the code": code_fingerprint(Path(__file__).parent)}


def train(run: Run, lock: Hold | None, profile: Profile, began: float) -> None:
    """Runs a run from where it stands to its end, or to a signal."""
    job, config, watch, workdir = run.job, run.config, run.job.watch, run.workdir
    steps, every = config.train.steps, config.evaluation.every
    ran_on = environment.describe()  # now: the code may be changed while it runs
    made = run.made
    forms = stacked(made.tx, made.outline, made.moves)
    order = LayerOrder(run.mesh, config.mesh.rounds, forms)
    keep = config.checkpoint.keep
    with Checkpoints(workdir.path, keep, watch.bounds.save, order) as checkpoints:
        start, finished = where_it_stands(run, checkpoints)
        progress = Progress(steps, start) if run.first else None
        say: Callable[[str], None] = progress.note if progress else lambda text: None
        profile.begin(start, say)
        now = record.make(config, run.stream, run.data, versions(), environment.commit())
        source = None if start else beginning.starts_from(run, say)
        if source is not None:
            origin, began_with = source.record.origin, source.record.identity()
            now = dataclasses.replace(now, origin=origin, began=began_with)
        if run.asking is not None:
            now = dataclasses.replace(now, teacher=run.asking.teacher.identity)
        before = go_on(run, checkpoints, start, now, say)
        if start and before:
            now = dataclasses.replace(now, origin=before.origin, began=before.began)
        if finished:
            say(f"all {steps} steps are done: see {workdir}/{REPORT}, or raise config.train.steps")
            return

        files = begin_files(run, now, None if before is None else start, say)
        if start and before and not config.tuning.everything:
            source = starting.again(config.train.start_from, before.began, workdir)
        fixed = Fixed() if source is None else beginning.what_stays(run, source, order)
        # Before there is an optimizer's state beside it.
        run, fixed = beginning.ask(run, source, fixed, say)
        if start:
            state = beginning.restored(run, checkpoints, start, say)
        elif source is not None:
            state = beginning.state_from(run, source, fixed, order)
        else:
            state = beginning.drawn(run)
        say(outlook.describe(config, run.data, run.stream, run.mesh, made.state, made.fixed))
        for note in outlook.notes(config, run.stream):
            say(note)
        judging = judges(run, say)
        budget = run.held_out(config.evaluation.max_tokens)
        programs, score = compile_programs(run, start, budget)
        held_out = HeldOut(score, run.mesh, files, say, watch)
        by_tasks = During(judging, files, say, watch)
        recorder = make_recorder(run, files, progress, before.tokens if start and before else 0)

        count, evaluated = start, before is not None and before.evaluated
        vote = job.interrupts.voter(run.mesh)
        feed = Feed(run.mesh, run.stream, start, steps)
        with job.interrupts.noted(), profile:
            while True:
                last = recorder.stop or count == steps
                if every and count and count % every == 0 and not (evaluated or last):
                    recorder.drain()
                    with contextlib.suppress(BrokenOff):
                        params = joined(state.params, fixed.params)
                        held_out(count, params, budget, vote)
                        by_tasks(count, params, vote)
                        evaluated = True
                    last = not evaluated
                    recorder.restart_clock()
                if count > start and (last or count % config.checkpoint.every == 0):
                    watch.at(f"saving step {count}", watch.bounds.save)
                    recorder.drain()
                    if lock is not None:
                        lock.check()
                        workdir.publish(*METRICS)
                    reached = now.after(count, run.stream, recorder.tokens, evaluated)
                    checkpoints.save(count, state, reached.to_dict())
                    recorder.restart_clock()
                if last:
                    break
                watch.at(f"step {count + 1}", watch.bounds.step)
                batch, waited = feed.next()
                profile.before(count + 1)
                state, metrics = programs[run.stream.shape(count)](state, fixed, batch)
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
    params = joined(state.params, fixed.params)
    final = held_out(count, params, run.held_out(None)) | {"step": count}
    judged = by_tasks(count, params)
    finish(run, params, final, judged, files, progress, ran_on)


def where_it_stands(run: Run, checkpoints: Checkpoints) -> tuple[int, bool]:
    """The step of the newest checkpoint, and whether nothing is left to do.

    All processes have to see the same, and to read the same data, or all end.
    """
    start = checkpoints.latest() or 0
    finished = start == run.config.train.steps and (run.workdir.path / REPORT).exists()
    seen = {
        "the newest checkpoint": str(start),
        "the report": "written" if finished else "not written",
        "the data stream": run.stream.fingerprint(run.config.train.steps),
        "the held-out data": run.data.eval_fingerprint,
    }
    commands.compare(run.job, "what to do", seen)
    return start, finished


def go_on(
    run: Run,
    checkpoints: Checkpoints,
    start: int,
    now: record.Record,
    say: Callable[[str], None],
) -> record.Record | None:
    """The record of the run that is to go on from step `start`; None in a fresh workdir.

    Raises:
      UserError: it is another run than `now`.
    """
    saved = checkpoints.run(start) if start else run.workdir.read_run()
    if saved is None:
        return None
    before, notes = record.read(saved, run.workdir)
    for note in notes:
        say(note)
    so_far = dataclasses.replace(now, stream=run.stream.fingerprint(before.step))
    text, was = run.config.train.start_from, before.config.train.start_from
    if start:  # it has its own parameters
        if text and was and text != was:
            starting.again(text, before.began, run.workdir)
        so_far = dataclasses.replace(so_far, began=before.began)
    for change in continuation.check(before, so_far, run.workdir):
        say(f"changed since the run began: {change}")
    return before


def begin_files(
    run: Run, now: record.Record, start: int | None, say: Callable[[str], None]
) -> MetricsFiles | None:
    """Writes what the workdir says of this start of the run; None on every process but the first.

    Args:
      now: this run.
      start: the step that the metrics are cut back to; None in a fresh workdir.
      say: where people read.
    """
    if not run.first:
        return None
    workdir = run.workdir
    workdir.fetch(*METRICS)
    if start is None:
        check_fresh(workdir.local)
    workdir.write_run(now.to_dict())  # first: metrics without it would be those of another run
    files = MetricsFiles(workdir.local, start, say)
    run.data.tokenizer.save(workdir.local / TOKENIZER)
    workdir.publish(TOKENIZER)
    if files_of_chat := chat_files(start_from.data_of(run.config, workdir), run.data.tokenizer):
        starting.add_published(files_of_chat, workdir)
    (workdir.path / REPORT).unlink(missing_ok=True)  # it is of fewer steps
    return files


def compile_programs(
    run: Run,
    start: int,
    budget: Mapping[str, Rows],
) -> tuple[dict[tuple[int, int], Callable[..., Any]], Scorer]:
    """The steps of training that are to come, by the shape of their batches, and the evaluation."""
    config, watch, mesh, made = run.config, run.job.watch, run.mesh, run.made
    steps = {}
    for shape, first in run.stream.shapes(start, config.train.steps).items():
        watch.at("compiling the step of {} x {} tokens".format(*shape), watch.bounds.start)
        one_row = run.stream.batch(first, slice(0, 1))
        rows = abstract_rows(mesh, shape[0], one_row)
        steps[shape] = compiled(made.step, made.state, made.fixed, rows)
    params = joined(made.state.params, made.fixed.params)
    of_pairs = objective(config.objective) if config.objective.name in PREFERENCES else None
    score = make_scorer(made.outline, mesh, shardings_of(params), of_pairs)
    if config.evaluation.every:
        watch.at("compiling the evaluation", watch.bounds.start)
        one_row = next(iter(budget.values())).batch(0, slice(0, 1))
        rows = abstract_rows(mesh, config.evaluation.batch_size, one_row)
        score = compiled(score, params, rows)
    return steps, score


def compiled(function: Callable[..., Any], *like: Any) -> Callable[..., Any]:
    """A jitted function, compiled now: a signal that comes meanwhile ends the process at once.

    Args:
      function: jitted.
      like: the shapes, dtypes and shardings of its arguments.
    """
    return function.lower(*like).compile()  # type: ignore[attr-defined]


def judges(run: Run, say: Callable[[str], None]) -> list[Judge]:
    """What judges the run by its tasks, config.evaluation.examples of each."""
    config, made, watch = run.config, run.made, run.job.watch
    data, how = start_from.data_of(config, run.workdir), config.evaluation
    watch.at("reading examples to be judged by", watch.bounds.prepare)
    read = cases_of(data, how.examples, run.data.tokenizer, say)
    if not read:
        return []
    seen = {
        f"the examples of {one.name}": hashlib.sha256(repr(one.cases).encode()).hexdigest()
        for one in read
    }
    commands.compare(run.job, "what to be judged by", seen)
    # Now the first process has brought what was published: an answer ends as it does in eval.py.
    run.workdir.fetch(PUBLISHED)
    stops = Published(run.workdir.local / PUBLISHED).stop_ids
    model = Model(made.outline, run.mesh, config.mesh, run.data.tokenizer, stops)
    found = [
        Judge(one.name, one.task, one.cases, model, how.batch_size, refuse=False) for one in read
    ]
    for judge in found:
        if judge.left_out:
            say(f"{judge.left_out:,} examples of {judge.name} are too long for it to be judged by")
    return found


def make_recorder(
    run: Run, files: MetricsFiles | None, progress: Progress | None, tokens: int
) -> Recorder:
    """The recorder of a run that has seen `tokens` tokens."""
    peak, corpora = peak_flops(jax.devices()[0]), run.data.corpora

    def work(step: int) -> Work:
        rows, length = run.stream.shape(step - 1)
        a_token = run.config.model.flops_per_token(length)
        return Work(rows * length, rows * length * a_token / run.mesh.size)

    return Recorder(
        files,
        progress,
        tokens=tokens,
        work=work,
        sources=[corpus.name for corpus in corpora] if len(corpora) > 1 else (),
        tasks=[corpus.name for corpus in corpora if corpus.task],
        peak_flops=peak[0] if peak else None,
    )


def finish(
    run: Run,
    params: Params,
    final: dict[str, float],
    judged: list[Judged],
    files: MetricsFiles | None,
    progress: Progress | None,
    ran_on: dict[str, str],
) -> None:
    """Draws samples, and on the first process says the result and writes the report.

    Args:
      params: after the last step.
      final: the evaluation of them, with its step.
      judged: what they made of the tasks.
      files, progress: None on every process but the first.
      ran_on: from environment.describe, when the run began.
    """
    watch, workdir, config, data = run.job.watch, run.workdir, run.config, run.data
    watch.at("drawing samples", watch.bounds.start)
    outline, params, mesh = to_decode(run.made.outline, params, run.mesh, config.mesh.rounds)
    samples = summary.draw_samples(config, outline, params, data, mesh)
    watch.at("writing the report", watch.bounds.save)
    if files is None or progress is None:
        return
    files.close()
    progress.close()
    summary.print_result(final, judged, data)
    summary.report(workdir.local, workdir.path.name, config, data, final, judged, samples, ran_on)
    workdir.publish(*METRICS, REPORT)
    print(f"report: {workdir}/{REPORT}")


if __name__ == "__main__":
    commands.run(main, required=("config", "workdir"), check=lambda: Workdir(WORKDIR.value))
