"""Whether a run may go on from a checkpoint: which keys are frozen, which may change."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from errors import UserError
from training.config import OptimizerConfig, RunConfig
from training.optimizer import learning_rate

FROZEN = "frozen: another value would be another run"
SCHEDULE = "may change as long as the learning rate of every step taken stays what it was"
FREE = "may change: another speed, memory or output, not another result (but for rounding)"

KEYS: Mapping[str, str] = {
    # The longest prefix of a key decides.
    "model": FROZEN,
    "model.dtype": FREE,
    "model.remat": FREE,
    "model.scan_unroll": FREE,
    "data": FROZEN,
    "data.data_dir": FREE,
    "mesh": FREE,
    "optimizer": FROZEN,
    "optimizer.learning_rate": SCHEDULE,
    "optimizer.schedule": SCHEDULE,
    "optimizer.warmup_steps": SCHEDULE,
    "optimizer.decay_steps": SCHEDULE,
    "optimizer.final_fraction": SCHEDULE,
    "train": FROZEN,
    "train.steps": SCHEDULE,
    "train.accumulation": FREE,
    "evaluation": FREE,
    "checkpoint": FREE,
    "report": FREE,
    "watch": FREE,
}


def rule(key: str) -> str:
    """The rule of a dotted key."""
    while key not in KEYS:
        key = key.rpartition(".")[0]
    return KEYS[key]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys -> plain values."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys whose values differ -> (old, new); a missing value is None."""
    found: dict[str, Any] = {}
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif _plain(a) != _plain(b):
            found[f"{prefix}{key}"] = (a, b)
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def check(saved: Mapping[str, Any], config: RunConfig, dataset: str, workdir: object) -> list[str]:
    """Checks a config against the `run` item of the checkpoint that it would go on from.

    Args:
      saved: the checkpoint's `run` item: config, dataset and step.
      config: the config asked for.
      dataset: the identity of the data stream as it is now.
      workdir: of the run, for the message.

    Returns:
      the differences that are allowed, one line each.

    Raises:
      UserError: naming every differing key that may not differ.
    """
    found = differences(saved["config"], config.to_dict())
    refused = {key: pair for key, pair in found.items() if rule(key) == FROZEN}
    scheduled = {key: pair for key, pair in found.items() if rule(key) == SCHEDULE}
    if scheduled and not _same_past(saved, config):
        refused |= scheduled
    if refused:
        listed = "; ".join(f"{key} was {a!r}, now {b!r}" for key, (a, b) in refused.items())
        raise UserError(
            f"{workdir} holds a run with another config ({listed}): "
            "put the old values back, or choose another --workdir"
        )
    if saved["dataset"] != dataset:
        raise UserError(
            f"the data of {workdir} was {saved['dataset']}, now it is {dataset}: bring the same "
            "data and Python version back, or choose another --workdir"
        )
    return [f"{key}: {a!r} -> {b!r}" for key, (a, b) in found.items()]


def _same_past(saved: Mapping[str, Any], config: RunConfig) -> bool:
    """Whether both schedules gave the same learning rate at every finished step."""
    taken, old = saved["step"], saved["config"]
    if config.train.steps < taken:
        return False
    counts = np.arange(taken)
    before = learning_rate(OptimizerConfig(**old["optimizer"]), old["train"]["steps"])(counts)
    after = learning_rate(config.optimizer, config.train.steps)(counts)
    return bool(np.array_equal(before, after))
