"""The door: a ConfigDict comes in, frozen and checked dataclasses go on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import keys
from configs.base import AUTO
from data.stages import skipped, stages_of
from data.tokenizer import Tokenizer
from errors import UserError
from model.adapter_config import AdapterConfig
from training.config import RunConfig
from training.fields import build
from training.objectives.config import PREFERENCES

_SPARE = 9 / 8
"""More rows than this for each of the tokenizer's ids are taken for a mistake."""


def read(config: ConfigDict, platform: str) -> RunConfig:
    """Checks a config and freezes it. (A saved one is read by checkpointing/record.py.)

    Args:
      config: as a file in configs/ makes it, with all that the command line changed.
      platform: "cpu", "gpu" or "tpu": decides what model.dtype "auto" is.

    Raises:
      UserError: a value that cannot be or was not given, by its key.
    """
    plain = config.to_dict()
    for key in ("layout", "layouts"):  # configs/layouts.py has been there
        plain.pop(key, None)
    for section, values in plain.items():
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if value is None:
                raise UserError(_not_set(f"{section}.{key}", plain))
    if plain["model"]["dtype"] == AUTO:
        plain["model"]["dtype"] = "float32" if platform == "cpu" else "bfloat16"
    try:
        run, unknown = build(RunConfig, plain)
    except ValueError as error:
        raise UserError(f"config.{error}") from None
    if unknown:
        # A file in configs/ set it: what the command line sets is checked as flags are read.
        known = dataclasses.asdict(run)
        raise UserError("; ".join(filter(None, (keys.unknown(key, known) for key in unknown))))
    if run.model.adapter != AdapterConfig():
        raise UserError("config.model.adapter is set by config.tuning: set method, rank, ... there")
    try:
        adapter = run.tuning.adapter(run.model)
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, adapter=adapter))
    except ValueError as error:
        raise UserError(f"config.tuning: {error}") from None
    if run.data.sequence_length > run.model.max_length:
        raise UserError(
            f"config.data.sequence_length={run.data.sequence_length} is longer than "
            f"config.model.max_length={run.model.max_length}: make one fit the other"
        )
    try:
        course = stages_of(run.data, run.train.batch_size)
        skipped(run.data.skip, course)
    except ValueError as error:
        raise UserError(f"config.{error}") from None
    for key, rows in batch_sizes(run).items():
        if rows % run.train.accumulation:
            raise UserError(
                f"config.train.accumulation={run.train.accumulation} does not divide "
                f"config.{key}={rows}: make one fit the other"
            )
    _check_objective(run)
    if run.evaluation.stride > run.data.sequence_length:
        raise UserError(
            f"config.evaluation.stride={run.evaluation.stride} is longer than "
            f"config.data.sequence_length={run.data.sequence_length}: tokens would be left out"
        )
    return run


def _check_objective(run: RunConfig) -> None:
    """Refuses what an objective cannot do.

    Raises:
      UserError: naming the keys.
    """
    asked, name = run.objective, f"config.objective.name={run.objective.name!r}"
    if asked.learns_from and asked.stored:
        for key, length in sequence_lengths(run).items():
            if length != run.data.sequence_length:
                raise UserError(
                    f"config.{key}={length}: what is stored of a row is of rows of "
                    f"{run.data.sequence_length}; set config.objective.stored=False, or leave the "
                    "key out"
                )
    if asked.name in PREFERENCES:
        if run.train.z_loss:
            raise UserError(f"{name} has no z-loss: set config.train.z_loss=0")
        moe = run.model.moe
        if moe.num_experts and (moe.balance_weight or moe.router_z_weight):
            raise UserError(
                f"{name} counts pairs, and the losses of experts count tokens: set "
                "config.model.moe.balance_weight=0 and config.model.moe.router_z_weight=0"
            )


def check_pairs(run: RunConfig, are_pairs: Mapping[str, bool]) -> None:
    """Refuses data that the objective cannot learn from.

    Args:
      are_pairs: of each corpus whether it is of pairs of answers.

    Raises:
      UserError: it is, and should not be; or the other way round.
    """
    wanted, name = run.objective.name in PREFERENCES, run.objective.name
    for corpus, found in are_pairs.items():
        if found != wanted:
            of = f"config.data.mixture.{corpus}" if run.data.mixture else "config.data"
            there = "is of pairs of answers" if found else "has no pairs of answers"
            others = ", ".join(PREFERENCES) if found else "next_token, or give a task of pairs"
            raise UserError(f"config.objective.name={name!r}, but {of} {there}: use {others}")


def batch_sizes(run: RunConfig) -> dict[str, int]:
    """The rows of a step in each stage of a run, by the key that says them."""
    sizes = {"train.batch_size": run.train.batch_size}
    for name, stage in run.data.stages.items():
        if stage.batch_size:
            sizes[f"data.stages.{name}.batch_size"] = stage.batch_size
    return sizes


def sequence_lengths(run: RunConfig) -> dict[str, int]:
    """The tokens of a row in each stage of a run, by the key that says them."""
    lengths = {"data.sequence_length": run.data.sequence_length}
    for name, stage in run.data.stages.items():
        if stage.sequence_length:
            lengths[f"data.stages.{name}.sequence_length"] = stage.sequence_length
    return lengths


def _not_set(key: str, plain: Mapping[str, Any]) -> str:
    needs, give = "this config leaves it to you", "VALUE"
    if key == "data.tokenizer":
        ids = plain["model"]["vocab_size"]
        needs = f"this config needs a tokenizer of {ids:,} ids" if ids else needs
        give = "PATH/tokenizer.json"
    return f"config.{key} is not set: {needs}: give --config.{key}={give}"


def check_tokenizer(run: RunConfig, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer that does not suit the run; called before anything is tokenized.

    Raises:
      UserError: its ids do not fit the model's vocabulary or leave much of it unused, or a prompt
        of the report is longer than the model takes.
    """
    check_vocabulary(run, tokenizer)
    for prompt in run.report.prompts:
        length = 1 + len(tokenizer.encode_batch([prompt])[0])  # BOS
        if length >= run.model.max_length:
            shown = prompt if len(prompt) <= 20 else f"{prompt[:20]}..."
            raise UserError(
                f"config.report.prompts: {shown!r} has {length} tokens, BOS included, which leaves "
                f"no room in config.model.max_length={run.model.max_length}: shorten it"
            )


def check_vocabulary(run: RunConfig, tokenizer: Tokenizer) -> None:
    """Refuses a vocabulary that is too small for the tokenizer, or far too large.

    Raises:
      UserError: if so.
    """
    asked, ids = run.model.vocab_size, tokenizer.vocab_size
    if asked and asked < ids:
        raise UserError(
            f"config.model.vocab_size={asked} is smaller than the tokenizer's {ids} ids: "
            "set it to 0 to take the tokenizer's"
        )
    if asked > ids * _SPARE and not run.model.spare_vocab:
        raise UserError(
            f"config.model.vocab_size={asked} is far larger than the tokenizer's {ids} ids: set it "
            "to 0 to take the tokenizer's, give another config.data.tokenizer, or set "
            "config.model.spare_vocab=True if that is meant"
        )


def with_vocabulary(run: RunConfig, vocab_size: int) -> RunConfig:
    """The run with the tokenizer's vocabulary, if its config left that open (0)."""
    asked = run.model.vocab_size
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, vocab_size=asked or vocab_size)
    )
