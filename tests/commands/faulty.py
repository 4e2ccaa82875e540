"""train.py with a fault in it: python faulty.py ARGUMENTS, with FAULT="KIND:STEP:PROCESS".

The fault strikes one process before a step: "raise" or "hang"; or it is "version", which makes
that process claim another version of JAX; or "kill", and it is killed within the save of that step.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax

import commands
import train
from checkpointing.checkpoints import Checkpoints
from reporting import environment
from sharding.feed import Feed

KIND, STEP, PROCESS = os.environ["FAULT"].split(":")
_versions, _next, _save = environment.versions, Feed.next, Checkpoints.save
_taken = 0


def versions() -> dict[str, str]:
    found = _versions()
    return found | {"jax": "9.9.9"} if jax.process_index() == int(PROCESS) else found


def save(checkpoints: Checkpoints, step: int, *args: Any) -> None:
    _save(checkpoints, step, *args)
    if step == int(STEP):
        os.kill(os.getpid(), signal.SIGKILL)  # what was begun in the background is half done


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
    elif KIND == "kill":
        Checkpoints.save = save  # type: ignore[method-assign, assignment]
    else:
        Feed.next = next_batch  # type: ignore[method-assign, assignment]
    commands.run(train.main, required=("config", "workdir"))
