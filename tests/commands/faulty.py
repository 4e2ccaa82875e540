"""train.py with a fault in it: python faulty.py ARGUMENTS, with FAULT="KIND:STEP:PROCESS".

The fault strikes one process before a step: "raise" or "hang"; or it is "version", which makes
that process claim another version of JAX.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

import commands
import train
from reporting import environment
from sharding.feed import Feed

KIND, STEP, PROCESS = os.environ["FAULT"].split(":")
_versions, _next = environment.versions, Feed.next
_taken = 0


def versions() -> dict[str, str]:
    found = _versions()
    return found | {"jax": "9.9.9"} if jax.process_index() == int(PROCESS) else found


def next_batch(feed: Feed) -> Any:
    global _taken
    _taken += 1
    if _taken == int(STEP) and jax.process_index() == int(PROCESS):
        if KIND == "raise":
            raise RuntimeError("a fault")
        if KIND == "hang":
            time.sleep(1000)
    return _next(feed)


if __name__ == "__main__":
    if KIND == "version":
        environment.versions = versions
    else:
        Feed.next = next_batch  # type: ignore[method-assign, assignment]
    commands.run(train.main, required=("config", "workdir"))
