"""Whether a run may go on from a checkpoint: which keys are frozen, which may change."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpointing.record import Record
from checkpointing.starting import tokenizer_of
from errors import UserError
from training.config import RunConfig
from training.fields import flat
from training.schedule import learning_rate

FROZEN = "frozen: another value would be another run"
SCHEDULE = "may change as long as the learning rate of every step taken stays what it was"
AHEAD = "may change as long as the batch of every step taken stays what it was"
PLACE = "may change as long as the parameters that are there are the same"
FREE = "may change: another speed, memory or output, not another result (but for rounding)"

_TABLE: Mapping[str, Mapping[str, str]] = {
    # Every key has its place here, and a new one is given its place by who adds it.
    "model": {
        FROZEN: "vocab_size num_layers embed_dim num_heads num_kv_heads head_dim mlp_dim "
        "max_length vocab_multiple norm norm_eps positions rope_theta mlp bias qk_norm "
        "attention_softcap logit_softcap sliding_window tie_embeddings init_std "
        "norms norm_offset rope_scaling rope_local_theta qkv_bias qk_norm_over attention_scale "
        "attention_sinks layer_pattern embed_scale latent "
        "moe.num_experts moe.experts_per_token moe.expert_mlp_dim moe.shared_experts "
        "moe.first_dense moe.groups moe.groups_per_token moe.scoring moe.renormalise "
        "adapter moe.route_scale moe.balance moe.balance_weight moe.bias_rate moe.router_z_weight",
        FREE: "spare_vocab dtype quantization remat remat_save remat_offload scan_unroll logits_mb",
    },
    "data": {
        FROZEN: "source sequence_length train_split text_key invalid_utf8 tokenizer "
        "tokenizer_vocab_size filters packing seed task too_long limit chat_template",
        AHEAD: "mixture stages skip rates",
        FREE: "eval_split data_dir processes max_epochs mixture.*.eval_split mixture.*.data_dir",
    },
    "mesh": {
        FREE: "data fsdp tensor context expert pipeline context_attention rounds microbatches"
    },
    "optimizer": {
        FROZEN: "name beta1 beta2 eps momentum weight_decay clip_norm",
        SCHEDULE: "learning_rate schedule warmup_steps decay_steps final_fraction",
        FREE: "offload",
    },
    "train": {
        FROZEN: "batch_size seed z_loss",
        PLACE: "start_from",
        SCHEDULE: "steps",
        FREE: "accumulation",
    },
    "tuning": {FROZEN: "method rank alpha targets dropout moving"},
    "objective": {
        PLACE: "teacher",
        FROZEN: "name stored top_k divergence jsd_weight temperature mix beta margin "
        "label_smoothing",
    },
    "evaluation": {FREE: "every max_tokens batch_size stride examples"},
    "checkpoint": {FREE: "every keep"},
    "report": {FREE: "prompts max_tokens temperature top_p"},
    "watch": {FREE: "start prepare step save lost"},
}

KEYS: Mapping[str, str] = {
    f"{section}.{key}": rule
    for section, rules in _TABLE.items()
    for rule, keys in rules.items()
    for key in keys.split()
}
"""The rule of every dotted key. "*" is a name that the config gives; a section such as data.stages
stands for all keys in it that have no row."""


TRAINING_ONLY = frozenset("init_std moe.balance_weight moe.bias_rate moe.router_z_weight".split())
"""Keys of a model that say how it is trained, and nothing of what it computes."""


def rule(key: str) -> str:
    """The rule of a dotted key.

    Raises:
      KeyError: it has none.
    """
    parts = key.split(".")
    wild = ".".join([*parts[:2], "*", *parts[3:]])
    return next((KEYS[k] for k in (key, wild) if k in KEYS), "") or KEYS[".".join(parts[:2])]


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose values differ -> (old, new)."""
    before, now = flat(old.to_dict()), flat(new.to_dict())
    return {
        key: (before.get(key), now.get(key))
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    }


def check(before: Record, now: Record, workdir: object) -> list[str]:
    """Checks a run against the record of the checkpoint that it would go on from.

    That what was begun with, or is asked, is the same elsewhere shows in `began` and `teacher`.

    Args:
      before: what the checkpoint, or run.json, says.
      now: what was asked for, on the data and versions that are here, with the stream as it is
        up to the step of `before`.
      workdir: of the run, for the message.

    Returns:
      the differences that are allowed, one line each.

    Raises:
      UserError: naming every differing key that may not differ, or other training data.
    """
    found = differences(before.config, now.config)
    refused = {key: pair for key, pair in found.items() if rule(key) == FROZEN}
    # "" is another thing than any place.
    refused |= {key: pair for key, pair in found.items() if rule(key) == PLACE and not all(pair)}
    if _tokenizer_came_along(before.config, now.config):
        refused.pop("data.tokenizer", None)
    scheduled = {key: pair for key, pair in found.items() if rule(key) == SCHEDULE}
    if scheduled and not _same_past(before, now.config):
        refused |= scheduled
    if before.stream != now.stream:
        refused |= {key: pair for key, pair in found.items() if rule(key) == AHEAD}
    if refused:
        listed = "; ".join(f"{key} was {a!r}, now {b!r}" for key, (a, b) in refused.items())
        raise UserError(
            f"{workdir} holds a run with another config ({listed}): "
            "put the old values back, or choose another --workdir"
        )
    if before.began != now.began:
        raise UserError(
            f"{workdir} has no checkpoint yet, and what config.train.start_from leads to has "
            "changed since it began: choose another --workdir"
        )
    if before.teacher and now.teacher and before.teacher != now.teacher:
        raise UserError(
            f"what config.objective asks in {workdir} has changed since it began, from the "
            f"parameters {before.teacher} to {now.teacher}: bring the same teacher or reference "
            "back, or choose another --workdir"
        )
    if before.stream != now.stream:
        raise UserError(
            f"the training data of {workdir} up to step {before.step} was {before.stream}, now it "
            f"is {now.stream}: bring the same data and versions back, or choose another --workdir"
        )
    told = [f"{key}: {a!r} -> {b!r}" for key, (a, b) in found.items()]
    return [*told, *_other_data(before, now), *_other_versions(before, now)]


def _tokenizer_came_along(old: RunConfig, new: RunConfig) -> bool:
    """Whether each has the tokenizer of what it starts from; if the same, `stream` says."""
    return all(
        config.train.start_from and config.data.tokenizer == tokenizer_of(config.train.start_from)
        for config in (old, new)
    )


def _same_past(before: Record, config: RunConfig) -> bool:
    """Whether both schedules gave the same learning rate at every finished step."""
    if config.train.steps < before.step:
        return False
    counts = np.arange(before.step)
    old = learning_rate(before.config.optimizer, before.config.train.steps)(counts)
    new = learning_rate(config.optimizer, config.train.steps)(counts)
    return bool(np.array_equal(old, new))


def _other_data(before: Record, now: Record) -> list[str]:
    """Data that is not trained on may be other data: the stream is what a run's steps are of."""
    told = []
    if before.dataset != now.dataset:
        told.append(
            f"the dataset: {before.dataset} -> {now.dataset} (the batches trained on are the same)"
        )
    if before.eval_store and before.eval_store != now.eval_store:
        told.append(
            f"the held-out data: {before.eval_store} -> {now.eval_store}: evaluations before and "
            "after cannot be compared"
        )
    return told


def _other_versions(before: Record, now: Record) -> list[str]:
    old, new = before.versions, now.versions
    changed = [
        f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if not changed:
        return []
    what = f"versions: {', '.join(changed)}" if old else "versions: those before were not recorded"
    return [f"{what}; from here the run may differ from an uninterrupted one by rounding"]
