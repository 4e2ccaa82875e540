"""Long calls that say nothing: they run in a thread, and the caller's thread says it waits."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

EVERY_S = 2.0


def steadily(work: Callable[[], T], tick: Callable[[], None]) -> T:
    """Returns work(), and calls tick() each `EVERY_S` seconds until it is there.

    For a call into a library that reports nothing for minutes, such as the training of a
    tokenizer: the other processes hear that this one goes on, and signals find Python in the
    main thread. Where tick() raises, the work is left behind and ends with the process.

    Raises:
      whatever `work` or `tick` raises.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # passed on below, in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="steadily", daemon=True)
    thread.start()
    while True:
        thread.join(EVERY_S)
        if not thread.is_alive():
            break
        tick()
    if errors:
        raise errors[0]
    return results[0]
