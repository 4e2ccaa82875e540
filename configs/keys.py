"""The dotted keys of a config: what was meant by one that does not exist."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def unknown(path: str, config: Mapping[str, Any]) -> str | None:
    """One line about a dotted key that the config does not have, or None if it has it.

    Args:
      path: such as "train.steps".
      config: nested mappings.
    """
    keys = path.split(".")
    level: Any = config
    for depth, key in enumerate(keys):
        if not isinstance(level, Mapping):
            value = ".".join(keys[:depth])
            return f"unknown config key {path}: {value} is a value and has no keys"
        if key not in level:
            return f"unknown config key {path}: {_hint(keys, config)}"
        level = level[key]
    return None


def _hint(keys: Sequence[str], config: Mapping[str, Any]) -> str:
    meant: list[str] = []
    level: Any = config
    for key in keys:
        near = [key] if key in level else difflib.get_close_matches(key, list(level), n=1)
        if not near:
            break
        meant.append(near[0])
        level = level[near[0]]
        if not isinstance(level, Mapping):
            break
    found = len(meant) == len(keys)
    elsewhere = [name for name in _leaves(config) if name.rpartition(".")[2] == keys[-1]]
    # "step" in train is a slip of "steps", but "steps" in optimizer is none of "eps".
    sure = found and difflib.get_close_matches(keys[-1], meant[-1:], cutoff=0.8)
    if elsewhere and not sure:
        return f"did you mean {' or '.join(elsewhere)}?"
    if found:
        return f"did you mean {'.'.join(meant)}?"
    if not isinstance(level, Mapping):
        return f"{'.'.join(meant)} is a value and has no keys"
    return f"{'.'.join(meant) or 'the config'} has {', '.join(sorted(level))}"


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
