"""Pretrains a decoder, or goes on where it stopped.

    python train.py --config=configs/python_stdlib.py --workdir=runs/python_stdlib

The run is a function of its config: the same command again resumes from the newest checkpoint in
the workdir, and leaves there what an uninterrupted run would have left.
"""

import dataclasses
import time
from pathlib import Path

import jax
from absl import flags
from jax.experimental import multihost_utils

import commands
from checkpointing import continuation
from checkpointing.checkpoints import Checkpoints
from checkpointing.interrupts import Interrupts
from checkpointing.workdir import REPORT, TOKENIZER, lock, read_run, write_run
from configs import door
from data.prepare import Prepared, prepare
from data.stream import Stream
from data.windows import Windows
from errors import UserError
from evaluation.perplexity import evaluate, make_scorer
from model import parameters
from reporting import summary
from reporting.hardware import peak_flops
from reporting.metrics import MetricsFiles
from reporting.profile import Profile
from reporting.progress import Progress, duration
from reporting.recorder import Recorder
from sharding.feed import Feed
from sharding.mesh import make_mesh
from sharding.placement import constrainer
from sharding.table import validate
from training.config import RunConfig
from training.optimizer import learning_rate, make_optimizer
from training.state import abstract_state, fresh_state, shardings_of
from training.step import make_step

CONFIG = commands.define_config()
WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run: checkpoints, metrics, report.")
PROFILE = flags.DEFINE_string(
    "profile", None, "FIRST:LAST, steps to trace into WORKDIR/profile (TensorBoard, Perfetto)."
)


def main() -> None:
    began = time.perf_counter()
    commands.start_jax()
    config = door.read(CONFIG.value, jax.default_backend())
    profile = Profile(PROFILE.value, Path(WORKDIR.value))
    check_layout(config)
    held = lock(Path(WORKDIR.value)) if jax.process_index() == 0 else None
    train(config, prepare_data(config), Path(WORKDIR.value), profile, began)
    if held is not None:
        held.close()


def check_layout(config: RunConfig) -> None:
    """Refuses a mesh that does not fit, before anything slow happens.

    The vocabulary is not known yet, but it will be a multiple of vocab_multiple: a mesh that
    divides that will do.
    """
    outline = parameters.outline(dataclasses.replace(config.model, vocab_size=1))
    batches = {
        "train.batch_size / train.accumulation": config.train.batch_size
        // config.train.accumulation,
        "evaluation.batch_size": config.evaluation.batch_size,
    }
    try:
        mesh = make_mesh(config.mesh)
        validate(mesh, parameters.logical_axes(outline), parameters.shapes(outline), batches)
    except ValueError as error:
        raise UserError(f"config.mesh: {error}") from None


def prepare_data(config: RunConfig) -> Prepared:
    """Prepares the data on the first process; the others then find it done."""
    if jax.process_index() == 0:
        with commands.PreparationProgress() as progress:
            data = prepare(config.data, progress)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("data prepared")
    return data if jax.process_index() == 0 else prepare(config.data)


def train(config: RunConfig, data: Prepared, workdir: Path, profile: Profile, began: float) -> None:
    """Runs a run from where it stands to its end, or to a signal."""
    first = jax.process_index() == 0
    config = door.with_vocabulary(config, data.tokenizer.vocab_size)
    steps, rows, length = config.train.steps, config.train.batch_size, config.data.sequence_length
    mesh = make_mesh(config.mesh)
    outline = parameters.outline(config.model, constrainer(mesh))
    stream = Stream(data.train, length, rows, config.data.seed)
    tx, schedule = make_optimizer(config.optimizer, steps), learning_rate(config.optimizer, steps)
    abstract = abstract_state(config.model, tx, outline, mesh)
    checkpoints = Checkpoints(workdir, keep=config.checkpoint.keep)
    start = checkpoints.latest() or 0
    progress = Progress(steps, start) if first else None

    def say(text: str) -> None:
        if progress is not None:
            progress.note(text)

    # What the workdir holds must be this very run.
    identity = {
        "config": config.to_dict(),
        "dataset": stream.fingerprint,
        "data": data.description["fingerprint"],
    }
    saved = checkpoints.run(start) if start else read_run(workdir)
    if saved is not None:
        for change in continuation.check(saved, config, stream.fingerprint, workdir):
            say(f"changed since the run began: {change}")
    files = MetricsFiles(workdir, None if saved is None else start) if first else None
    if first:
        write_run(workdir, {**identity, "step": 0})
        data.tokenizer.save(workdir / TOKENIZER)

    # The state, restored or fresh: on no device larger than its shard.
    if start:
        state = checkpoints.state(start, abstract)
        say(f"resuming after step {start} of {steps} in {workdir}")
    else:
        initialize = jax.jit(
            lambda: fresh_state(config.model, tx, config.train.seed),
            out_shardings=shardings_of(abstract),
        )
        state = initialize()
    evaluated = bool(saved and saved.get("evaluated"))

    say(describe(config, data, stream))
    step = make_step(outline, tx, schedule, config.train, mesh, abstract)
    score = make_scorer(outline, mesh, shardings_of(abstract.params))
    stride = config.evaluation.stride or None
    rows_eval = config.evaluation.batch_size
    budget = Windows(data.eval, length, rows_eval, stride, config.evaluation.max_tokens)
    peak = peak_flops(jax.devices()[0])
    recorder = Recorder(
        files,
        progress,
        tokens=saved["tokens"] if start and saved else 0,
        tokens_per_step=rows * length,
        flops_per_step=config.model.flops_per_token(length) * rows * length / mesh.size,
        peak_flops=peak[0] if peak else None,
    )

    def record_evaluation(count: int, windows: Windows) -> dict[str, float]:
        clock = time.perf_counter()
        result = evaluate(score, state.params, windows, mesh)
        spent = time.perf_counter() - clock
        line = {f"eval/{name}": value for name, value in result.items()}
        if files is not None and not files.has(count, "eval/loss"):
            files.write(count, {**line, "time/eval_s": spent})
        say(
            f"step {count}: held-out loss {result['loss']:.4f}, perplexity "
            f"{result['perplexity']:.2f}, {result['bits_per_byte']:.4f} bits/byte "
            f"({result['tokens']:,} tokens in {duration(spent)})"
        )
        return result

    count, every = start, config.evaluation.every
    feed = Feed(mesh, rows, stream.batch, start, steps)
    with Interrupts(mesh) as interrupts:
        while True:
            stopping = recorder.stop
            last = stopping or count == steps
            if every and count and count % every == 0 and not (evaluated or last):
                recorder.drain()
                record_evaluation(count, budget)
                recorder.restart_clock()
                evaluated = True
            if count > start and (last or count % config.checkpoint.every == 0):
                recorder.drain()
                cursor = {"step": count, "rows": count * rows, "tokens": recorder.tokens}
                checkpoints.save(count, state, {**identity, **cursor, "evaluated": evaluated})
                recorder.restart_clock()
            if last:
                break
            batch, waited = feed.next()
            profile.before(count + 1)
            state, metrics = step(state, batch)
            count, evaluated = count + 1, False
            recorder.add(count, metrics, waited, interrupts.vote())
            checkpoints.raise_errors()
            if count == start + 1:
                recorder.drain()
                say(f"first step {duration(time.perf_counter() - began)} after the start")
            if traced := profile.after(count, metrics):
                say(f"trace of the steps up to {count}: {traced}")
                recorder.restart_clock()
        checkpoints.wait()
    profile.close()

    if count < steps:
        if progress is not None:
            progress.close()
        say(f"stopped by {interrupts.signal or 'another process'}; step {count} is saved.")
        say("The same command goes on from there.")
        return

    report = workdir / REPORT
    if start == steps and report.exists():
        say(f"all {steps} steps are done: see {report}, or raise config.train.steps")
        return

    # The whole split, once, and what a person would like to see.
    say("evaluating the whole held-out split, and writing the report")
    final = record_evaluation(count, Windows(data.eval, length, rows_eval, stride))
    samples = summary.draw_samples(config, outline, state.params, data, mesh)
    if files is not None and progress is not None:
        files.close()
        progress.close()
        summary.print_result(final, data)
        path = summary.report(workdir, config, data, {**final, "step": count}, samples)
        print(f"report: {path}")
    checkpoints.close()


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
    commands.run(main, required=("config", "workdir"))
