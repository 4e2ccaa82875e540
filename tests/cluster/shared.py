"""A key-value store that threads share, as processes share the real one."""

import threading
import time

from cluster.coordination import LostCoordinator, OneProcess


class Shared(OneProcess):
    """Process `index` of `count`; all of one run are given the same `values`."""

    def __init__(self, values: dict[str, str], index: int, count: int) -> None:
        super().__init__()
        self._values, self.index, self.count = values, index, count

    def wait(self, key: str, timeout_s: float) -> str | None:
        deadline = time.monotonic() + timeout_s
        while key not in self._values and time.monotonic() < deadline:
            time.sleep(0.005)
        return self._values.get(key)


class Silent(Shared):
    """A store whose process 0 has gone."""

    def look(self, key: str) -> str | None:
        raise LostCoordinator("UNAVAILABLE: gone")


def in_threads(*functions) -> None:
    """Runs all functions at once, as the processes of a run would be."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
