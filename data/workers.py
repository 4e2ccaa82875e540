"""Processes that make the chunks of all shards, and what they tell meanwhile."""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.chunks import Recipe
from data.documents import Shard
from errors import UserError

_ROOT = Path(__file__).parent.parent
_TICK_S = 1.0

Event = tuple[str, int, Any]  # what, of which shard, and more


def run(recipe: Recipe, shards: Sequence[Shard], processes: int) -> Iterator[dict[int, int]]:
    """Makes the chunks of all shards.

    Yields:
      after every batch: how much has been read of the shards that are under way or done.

    Raises:
      UserError: of a shard.
      OSError: chunks cannot be written.
    """
    events: queue.Queue[Event] = queue.Queue()
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(shards)):
        tasks.put(number)
    workers = [_start(max(1, (os.cpu_count() or 1) // processes)) for _ in range(processes)]
    threads = [
        threading.Thread(target=_drive, args=(worker, recipe, shards, tasks, events), daemon=True)
        for worker in workers
    ]
    read: dict[int, int] = {}
    try:
        for thread in threads:
            thread.start()
        done = 0
        while done < len(shards):
            try:  # with a bound, so that signals find Python here
                kind, number, value = events.get(timeout=_TICK_S)
            except queue.Empty:  # no word of it: a process that hangs is to be noticed
                continue
            if kind == "mistake":
                raise UserError(value)
            if kind == "storage":
                raise OSError(*value)
            if kind == "ended":
                how = f"signal {-value}, out of memory?" if value < 0 else f"exit code {value}"
                raise UserError(
                    f"a process that prepares the data ended ({how}) at {shards[number].name}: "
                    "the same command goes on from what is done"
                )
            if kind == "done":
                done += 1
                value = shards[number].size
            read[number] = value
            yield read
    finally:
        for worker in workers:
            worker.kill()
        for worker, thread in zip(workers, threads, strict=True):
            worker.wait()
            thread.join()
            for pipe in (worker.stdin, worker.stdout):
                with contextlib.suppress(OSError):  # what it had not read yet
                    pipe.close()  # type: ignore[union-attr]


def _start(threads: int) -> subprocess.Popen[bytes]:
    """A process, with so many threads for the tokenizer."""
    return subprocess.Popen(
        [sys.executable, "-m", "data.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        env={**os.environ, "RAYON_NUM_THREADS": str(threads)},
    )


def _drive(
    worker: subprocess.Popen[bytes],
    recipe: Recipe,
    shards: Sequence[Shard],
    tasks: "queue.SimpleQueue[int]",
    events: "queue.Queue[Event]",
) -> None:
    """Gives a process one shard after another, and passes on what it answers."""
    assert worker.stdin is not None and worker.stdout is not None
    number = 0
    try:
        pickle.dump(recipe, worker.stdin)
        while True:
            try:
                number = tasks.get_nowait()
            except queue.Empty:
                worker.stdin.close()
                return
            pickle.dump((number, shards[number]), worker.stdin)
            worker.stdin.flush()
            kind = ""
            while kind != "done":
                kind, value = pickle.load(worker.stdout)
                events.put((kind, number, value))
    except (EOFError, OSError, ValueError, pickle.UnpicklingError):
        events.put(("ended", number, worker.wait()))
