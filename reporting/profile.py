"""A trace of chosen steps."""

from pathlib import Path

import jax

from errors import UserError


class Profile:
    """Traces steps FIRST to LAST (counted from 1) into WORKDIR/profile.

    Args:
      steps: "FIRST:LAST", or None for no trace.
      workdir: of the run.

    Raises:
      UserError: `steps` is not of that form.
    """

    def __init__(self, steps: str | None, workdir: Path):
        self._first = self._last = 0
        self._directory = workdir / "profile"
        self._tracing = False
        if steps:
            first, _, last = steps.partition(":")
            if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
                raise UserError(f"--profile={steps}: give FIRST:LAST, such as --profile=10:12")
            self._first, self._last = int(first), int(last)

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
        return self.close()

    def close(self) -> Path | None:
        """Ends a trace that is still open, so that it can be read."""
        if not self._tracing:
            return None
        jax.profiler.stop_trace()
        self._tracing = False
        return self._directory
