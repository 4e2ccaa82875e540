"""A run that starts from another's parameters (config.train.start_from) has its model, too.

    config.train.start_from = "runs/smollm2"

Keys of config.model that shape the model take the values that it has there. A key that the config
sets to something else is refused; but those that say how to train may differ. The tokenizer is that
of the model, where the config leaves it at its default.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from checkpointing import record, starting
from checkpointing.continuation import FROZEN, TRAINING_ONLY, rule
from checkpointing.workdir import TOKENIZER, Workdir
from configs.base import base
from data.config import DataConfig
from errors import UserError
from training.config import RunConfig
from training.fields import flat


def applied(
    config: ConfigDict, given: Collection[str] = (), workdir: Workdir | None = None
) -> tuple[ConfigDict, str | None]:
    """The config with the model that it starts from.

    Args:
      config: as a file in configs/ makes it, with all that the command line changed.
      given: the keys that the command line sets.
      workdir: of the run. Once it has begun, all is in there, and what it started from may be gone.

    Returns:
      the config; and what was taken, for people, or None.

    Raises:
      UserError: there is nothing to start from, or a key has another value there.
    """
    text = config.train.start_from
    if not text:
        return config, None
    began = None if workdir is None or not workdir.exists() else workdir.read_run()
    if workdir is not None and began is not None:
        theirs = record.read(began, workdir)[0].config
    else:
        theirs = starting.find(text).record.config
    plain = config.to_dict()
    default = base().to_dict()
    taken: dict[str, Any] = flat(theirs.to_dict()["model"])
    mine, usual = flat(plain["model"]), flat(default["model"])
    refused = []
    for key, value in taken.items():
        if key.startswith("adapter."):  # they are merged; those of the run are its own
            continue
        name = f"model.{key}"
        own = name in given or mine[key] != usual[key]
        if rule(name) == FROZEN and key not in TRAINING_ONLY:
            if own and _comparable(mine[key]) != _comparable(value):
                refused.append(f"config.{name}={mine[key]!r}, where it has {value!r}")
            _set(plain["model"], key, value)
        elif (key in TRAINING_ONLY or key == "spare_vocab") and not own:
            _set(plain["model"], key, value)
    if refused:
        raise UserError(
            f"config.train.start_from={text} is another model: {'; '.join(refused)}; leave these "
            "keys out"
        )
    told = f"model of {text}"
    usual_tokenizer = default["data"]["tokenizer"]
    if plain["data"]["tokenizer"] in (None, usual_tokenizer) and "data.tokenizer" not in given:
        plain["data"]["tokenizer"] = starting.tokenizer_of(text)
        told += ", and its tokenizer"
        if began is None and not (Workdir(text).path / TOKENIZER).exists():
            raise UserError(
                f"{text} has no tokenizer that Podium reads: give --config.data.tokenizer=PATH"
            )
    return ConfigDict(plain, convert_dict=True), told


def check(config: RunConfig) -> None:
    """Refuses to train a part of a model that is nowhere, or beside a reference that is nowhere.
    (A plan needs neither.)

    Raises:
      UserError: if so.
    """
    asked = config.objective
    if asked.learns_from == "reference" and not (asked.teacher or config.train.start_from):
        raise UserError(
            f"config.objective.name={asked.name!r} needs a reference: give "
            "--config.train.start_from=WORKDIR, or --config.objective.teacher=WORKDIR"
        )
    if not config.tuning.everything and not config.train.start_from:
        said = f"method={config.tuning.method!r}"
        if config.tuning.moving:
            said = f"moving={list(config.tuning.moving)}"
        raise UserError(
            f"config.tuning.{said} trains a part of a model: say whose by "
            "--config.train.start_from=WORKDIR"
        )


def data_of(config: RunConfig, workdir: Workdir) -> DataConfig:
    """The data of a run, with the tokenizer of its workdir where it has begun to start from
    another's: that may be gone.
    """
    own = workdir.path / TOKENIZER
    theirs = starting.tokenizer_of(config.train.start_from)
    if config.train.start_from and config.data.tokenizer == theirs and own.exists():
        return dataclasses.replace(config.data, tokenizer=str(own))
    return config.data


def _set(section: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    for name in outer:
        section = section[name]
    section[last] = value


def _comparable(value: Any) -> Any:
    """Lists and tuples, whole numbers and floats are equal where their values are."""
    return list(value) if isinstance(value, list | tuple) else value
