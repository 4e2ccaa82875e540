"""Podium's own commands, run as a user runs them."""

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any


def command(*arguments: str) -> tuple[str, float]:
    """What a command of Podium's prints, and how long it took."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {arguments[0]} did not end well: see above")
    return done.stdout, time.perf_counter() - began


def flags_of(config: Mapping[str, Any]) -> list[str]:
    """Flags that set keys of a config."""
    return [f"--config.{key}={value}" for key, value in config.items()]
