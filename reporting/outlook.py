"""What a run will be, told before it starts."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from data.annotations import Annotations, together
from data.preparation import Prepared, PreparedCorpus
from data.stream import Stream
from model.config import ModelConfig
from sharding.attention import described
from sharding.experts import is_ragged, kernel
from sharding.schedule import schedule
from training.config import RunConfig
from training.objectives.config import ObjectiveConfig
from training.state import NOTHING, Fixed, TrainState


def describe(
    config: RunConfig,
    data: Prepared,
    stream: Stream,
    mesh: Mesh,
    state: TrainState,
    fixed: Fixed = NOTHING,
) -> str:
    """The run in a few lines, before it starts; what it carries may be abstract."""
    model, epochs = config.model, stream.epochs(config.train.steps)
    lines = []
    for corpus in data.corpora:
        train, held_out = corpus.train, corpus.eval
        lines.append(
            f"{'data' if len(data.corpora) == 1 else corpus.name}: {corpus.dataset}: "
            f"{train.n_documents:,} documents, {train.n_tokens:,} tokens of "
            f"{train.n_bytes / train.n_tokens:.2f} bytes, to train on for "
            f"{epochs[corpus.name]:.2f} epochs{_learned(corpus)}; "
            f"{held_out.n_documents if held_out else 0:,} documents held out"
        )
    lines += [
        f"model: {model.num_params():,} parameters, {model.dtype}; "
        f"{config.train.steps:,} steps of {config.train.batch_size} x "
        f"{config.data.sequence_length} tokens",
        f"attention: {described(mesh, model, config.mesh.context_attention)}; optimizer: "
        f"{config.optimizer.name}; on each device {_megabytes(state.params)} of parameters and "
        f"{_megabytes(state.opt_state)} of optimizer state",
        *_tuning(config, state, fixed),
        *_experts(model, mesh),
        *_stages(config, mesh),
        f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}; compiling the step",
    ]
    return "\n".join(lines)


def _learned(corpus: PreparedCorpus) -> str:
    """What of examples is learned."""
    if not corpus.task:
        return ""
    return f", {corpus.train.n_learned:,} tokens of them learned ({corpus.task})"


def _tuning(config: RunConfig, state: TrainState, fixed: Fixed) -> list[str]:
    """A line if not all parameters move."""
    if config.tuning.everything:
        return []
    moving = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    what = f"parameters named {', '.join(config.tuning.moving)}"
    if (adapter := config.model.adapter).kind != "none":
        name = {"lora": "LoRA", "dora": "DoRA"}[adapter.kind]
        what = f"{name} of rank {adapter.rank} beside {', '.join(adapter.targets)}"
    total = config.model.num_params()
    return [
        f"tuning: {moving:,} parameters move ({moving / total:.2%}: {what}); on each device "
        f"{_megabytes(fixed.params)} of {total - moving:,} that stay"
    ]


def _stages(config: RunConfig, mesh: Mesh) -> list[str]:
    """A line if there are several."""
    if mesh.shape["pipeline"] == 1:
        return []
    plan = schedule(mesh, config.mesh, config.train.batch_size // config.train.accumulation)
    size = config.model.num_layers // (plan.stages * plan.rounds)
    return [
        f"pipeline: {plan.stages} stages of {plan.rounds} x {size} layers, {plan.microbatches} "
        f"microbatches, which leave a stage without work for {plan.bubble:.0%} of the time"
    ]


def _experts(model: ModelConfig, mesh: Mesh) -> list[str]:
    """A line if there are any."""
    moe = model.moe
    if not moe.num_experts:
        return []
    exchanged = f", by {'ragged_' if is_ragged(mesh) else ''}all_to_all"
    return [
        f"experts: {moe.num_experts}, of which {moe.experts_per_token} a token, and "
        f"{moe.shared_experts} shared; over {mesh.shape['expert']} devices"
        f"{exchanged if mesh.shape['expert'] > 1 else ''}; {kernel(mesh, model).name}"
    ]


def _megabytes(tree: Any) -> str:
    """What a device holds of arrays."""
    held = (
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
    return f"{sum(held) / 1e6:,.1f} MB"


def notes(config: RunConfig, stream: Stream) -> list[str]:
    """A line for each corpus that will be seen too often, and for what will never come."""
    most, steps = config.data.max_epochs, config.train.steps
    late = [f"data.stages.{n}" for n, s in config.data.stages.items() if s.after_step >= steps]
    late += [f"data.skip {e!r}" for e in config.data.skip if int(e.partition(":")[0]) > steps]
    return [f"note: {what} is beyond the last step, {steps}" for what in late] + [
        f"note: {name} will be seen {epochs:.1f} times, more than data.max_epochs={most:g}: what "
        "is repeated teaches less and less"
        for name, epochs in stream.epochs(steps).items()
        if epochs > most
    ]


def teacher(config: ObjectiveConfig, text: str, step: int, model: ModelConfig) -> str:
    """What a run asks, and when."""
    name = "teacher" if config.learns_from == "distill" else "reference"
    when = "once, before the first step" if config.stored else "in every step"
    return f"{name}: step {step} of {text}, {model.num_params():,} parameters, asked {when}"


def annotations(config: ObjectiveConfig, found: Sequence[Annotations]) -> str:
    """What was asked for and is kept: how large it is, and what it lacks."""
    sums = together(found)
    size = sum(one.n_bytes for one in found) / 1e6
    of = f"{int(sums.get('positions', 0)):,} positions, {size:,.1f} MB in the cache"
    if config.learns_from == "reference":
        return f"stored: the reference's log-probabilities of {of}"
    beyond = sums["mass beyond"] / max(sums["positions"], 1)
    return (
        f"stored: the teacher's {config.top_k} likeliest tokens of {of}; all others have "
        f"{beyond:.2%} of its probability on the mean, which counts as one token"
    )
