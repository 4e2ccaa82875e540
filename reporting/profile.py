"""A trace of chosen steps."""

from collections.abc import Callable
from pathlib import Path

import jax

from errors import UserError


class Profile:
    """Traces steps FIRST to LAST (counted from 1) into WORKDIR/profile.

    As a context it ends a trace that is still open when the block is left, however it is left, so
    that what was traced can be read.

    Args:
      wanted: "FIRST:LAST", or None for no trace.
      steps: of the whole run.
      workdir: of the run.

    Raises:
      UserError: `wanted` is not of that form, or the run has no such steps.
    """

    def __init__(self, wanted: str | None, steps: int, workdir: Path):
        self._first = self._last = 0
        self._directory = workdir / "profile"
        self._tracing = False
        self._say: Callable[[str], None] = lambda text: None
        if wanted:
            first, _, last = wanted.partition(":")
            if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
                raise UserError(f"--profile={wanted}: give FIRST:LAST, such as --profile=10:12")
            self._first, self._last = int(first), int(last)
            if self._last > steps:
                raise UserError(f"--profile={wanted}: the run has {steps} steps, choose among them")

    def begin(self, start: int, say: Callable[[str], None]) -> None:
        """Leaves out the steps that are done, and says so: the same command must go on.

        Args:
          start: steps finished before this start of the run.
          say: where people read.
        """
        self._say = say
        if self._first > start or not self._last:
            return
        asked, self._first = f"--profile={self._first}:{self._last}", start + 1
        if self._last > start:
            say(f"{asked}: step {start} is already done, so the trace begins at step {start + 1}")
        else:
            say(f"{asked}: step {start} is already done, so nothing is traced")
            self._first = self._last = 0

    def before(self, step: int) -> None:
        """Called before a step is dispatched."""
        if step == self._first:
            jax.profiler.start_trace(str(self._directory))
            self._tracing = True

    def after(self, step: int, result: object) -> Path | None:
        """Called after it was; waits for the last traced step, and says where the trace is."""
        if not self._tracing or step < self._last:
            return None
        jax.block_until_ready(result)
        self._close()
        return self._directory

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error: object) -> None:
        if self._tracing:
            self._close()
            self._say(f"the trace ends before step {self._last}: {self._directory}")

    def _close(self) -> None:
        self._tracing = False
        jax.profiler.stop_trace()
