"""What a run has before its next step: restored, read from another's parameters or drawn; and what
another decoder says of its rows.
"""

import dataclasses
from collections.abc import Callable

import jax

import commands
from checkpointing import starting, teacher
from checkpointing.checkpoints import Checkpoints
from checkpointing.starting import Start
from checkpointing.workdir import TOKENIZER
from data import tokenizer as tokenizers
from model import parameters
from reporting import outlook
from run import Run
from sharding.layer_order import LayerOrder
from training.state import Fixed, TrainState, fresh_state, shardings_of, started


def starts_from(run: Run, say: Callable[[str], None]) -> Start | None:
    """The checkpoint that the first step starts from; None where parameters are drawn."""
    if not (text := run.config.train.start_from):
        return None
    source = starting.find(text)
    seen = {"the step": str(source.step), "the parameters": source.record.identity()}
    commands.compare(run.job, "what to start from", seen)
    say(f"starting from step {source.step} of {text}, with a fresh optimizer")
    if run.first:
        own, used = source.workdir.path / TOKENIZER, run.data.tokenizer.fingerprint
        same = own.exists() and tokenizers.load(own).fingerprint == used
        starting.carry(source, run.workdir, same)
    return source


def what_stays(run: Run, source: Start, order: LayerOrder) -> Fixed:
    """What steps read and nothing changes: of the parameters that a run starts from those that do
    not move.
    """
    run.job.watch.at("reading what does not move", run.job.watch.bounds.start)
    made = run.made
    return Fixed(starting.take(source, made.outline, made.fixed.params, order))


def state_from(run: Run, source: Start, fixed: Fixed, order: LayerOrder) -> TrainState:
    """The state before the first step of a run that starts from another's parameters."""
    run.job.watch.at("reading the parameters", run.job.watch.bounds.start)
    made, seed = run.made, run.config.train.seed
    there = parameters.without_adapters(made.state.params)
    params = starting.take(source, made.outline, there, order)
    make = jax.jit(
        lambda params, fixed: started(made.outline, made.tx, seed, made.moves, params, fixed),
        out_shardings=shardings_of(made.state),
        donate_argnums=0,
    )
    return make(params, fixed.params)


def drawn(run: Run) -> TrainState:
    """The state before the first step of a run that starts from nothing: on no device larger than
    its shard.
    """
    run.job.watch.at("initializing the state", run.job.watch.bounds.start)
    made, seed = run.made, run.config.train.seed
    where = shardings_of(made.state)
    return jax.jit(lambda: fresh_state(made.outline, made.tx, seed), out_shardings=where)()


def restored(
    run: Run, checkpoints: Checkpoints, start: int, say: Callable[[str], None]
) -> TrainState:
    """The state after step `start`."""
    run.job.watch.at("restoring the state", run.job.watch.bounds.start)
    state = checkpoints.state(start, run.made.state)
    say(f"resuming after step {start} of {run.config.train.steps} in {run.workdir}")
    return state


def ask(
    run: Run, source: Start | None, fixed: Fixed, say: Callable[[str], None]
) -> tuple[Run, Fixed]:
    """The run with what its teacher, or reference, says of the rows to come; and what its step
    reads beside them, with that itself where it is asked in every step.
    """
    if (asking := run.asking) is None:
        return run, fixed
    config, asked = run.config, asking.teacher
    seen = {"its parameters": asked.identity, "it": "gone" if asked.found is None else "there"}
    commands.compare(run.job, "the teacher", seen)
    if asked.found is None:
        say(f"{asked.text} has no more what this run asks; what it said is to be in the cache")
    else:
        if note := teacher.check_tokenizer(asked, run.data.tokenizer):
            say(note)
        start, outline = asked.found
        say(outlook.teacher(config.objective, asked.text, start.step, outline.config))
    if source is not None:
        asking.lend(source, fixed.params)
    if asking.judges:
        run.held_out(None)
    if not asking.stored:
        return run, dataclasses.replace(fixed, teacher=asking.params())
    annotations = asking.about_stream(run.stream)
    asking.release()
    say(outlook.annotations(config.objective, annotations))
    return run._replace(stream=run.stream.annotated(annotations)), fixed
