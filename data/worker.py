"""A process that makes chunks of shards: `python -m data.worker`, started by data/workers.py.

It reads pickles from standard input (the recipe, then a shard at a time with its number) and writes
pickles to standard output; its own parent makes the ones and reads the others. When that process is
gone, so is the input, and it ends. It is no fork and imports no JAX: it starts quickly, and takes
little memory.
"""

import os
import pickle
import signal
import sys
from typing import Any

from data import chunks
from errors import UserError


def main() -> None:
    """Works until there is no more input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started it
    tasks, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(kind: str, value: Any) -> None:
        pickle.dump((kind, value), answers)
        answers.flush()

    try:
        recipe: chunks.Recipe = pickle.load(tasks)
        tools = chunks.Tools(recipe)
        while True:
            number, shard = pickle.load(tasks)
            for read in chunks.write(recipe, tools, number, shard):
                answer("read", read)
            answer("done", None)
    except (BrokenPipeError, EOFError):
        return
    except UserError as error:
        answer("mistake", str(error))
    except OSError as error:
        answer("storage", (error.errno, str(error)))


if __name__ == "__main__":
    main()
