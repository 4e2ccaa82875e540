"""One side of a comparison, in a process of its own, so that two go step by step in turn."""

import json
import subprocess
from typing import Any


class Side:
    """One side, which says what it is, and then answers each line with what it measured.

    Attributes:
      about: what it says of itself; empty if it does not start.
    """

    def __init__(self, python: str, module: str, *arguments: str):
        self.about: dict[str, Any] = {}
        try:
            self._process = subprocess.Popen(
                [python, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError:
            return
        assert self._process.stdout is not None
        self.about = json.loads(self._process.stdout.readline() or "{}")

    def step(self) -> dict[str, float]:
        """What a step took; nothing if the process has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return {}
        line = self._process.stdout.readline()
        found: dict[str, float] = json.loads(line or "{}")
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
