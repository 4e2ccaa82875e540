"""The door: a ConfigDict comes in, frozen and checked dataclasses go on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from cluster.config import WatchConfig
from configs.base import AUTO
from data.config import DataConfig
from errors import UserError
from model.config import ModelConfig
from sharding.config import MeshConfig
from training.config import (
    CheckpointConfig,
    EvaluationConfig,
    OptimizerConfig,
    ReportConfig,
    RunConfig,
    TrainConfig,
)

_SECTIONS: Mapping[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "mesh": MeshConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
    "checkpoint": CheckpointConfig,
    "report": ReportConfig,
    "watch": WatchConfig,
}


def read(config: ConfigDict | Mapping[str, Any], platform: str) -> RunConfig:
    """Checks a config and freezes it.

    Args:
      config: as a file in configs/ makes it, or as `RunConfig.to_dict` saved it.
      platform: "cpu", "gpu" or "tpu": decides what model.dtype "auto" is.

    Raises:
      UserError: a value that cannot be, by its key.
    """
    plain = config.to_dict() if isinstance(config, ConfigDict) else config
    sections: dict[str, Any] = {}
    for name, kind in _SECTIONS.items():
        values = dict(plain[name])
        if name == "model" and values["dtype"] == AUTO:
            values["dtype"] = "float32" if platform == "cpu" else "bfloat16"
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            sections[name] = kind(**values)
        except ValueError as error:
            raise UserError(f"config.{name}.{error}") from None
    run = RunConfig(**sections)
    if run.data.sequence_length > run.model.max_length:
        raise UserError(
            f"config.data.sequence_length={run.data.sequence_length} is longer than "
            f"config.model.max_length={run.model.max_length}: make one fit the other"
        )
    if run.evaluation.stride > run.data.sequence_length:
        raise UserError(
            f"config.evaluation.stride={run.evaluation.stride} is longer than "
            f"config.data.sequence_length={run.data.sequence_length}: tokens would be left out"
        )
    return run


def with_vocabulary(run: RunConfig, vocab_size: int) -> RunConfig:
    """The run with the tokenizer's vocabulary, if its config left that open (0).

    Raises:
      UserError: the config names a vocabulary that the tokenizer's ids do not fit.
    """
    asked = run.model.vocab_size
    if asked and asked < vocab_size:
        raise UserError(
            f"config.model.vocab_size={asked} is smaller than the tokenizer's {vocab_size} ids: "
            "set it to 0 to take the tokenizer's"
        )
    return dataclasses.replace(
        run, model=dataclasses.replace(run.model, vocab_size=asked or vocab_size)
    )
