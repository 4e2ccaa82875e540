"""How far the run is: one live line on a terminal, a plain line now and then elsewhere.

    step 1200/4000  loss 3.214  1.72 bits/byte  2.1k tok/s  wait 0.3%  ETA 3m12s

It goes to stderr, as progress does by convention: stdout stays free for results, and a run whose
output is redirected still shows where it is.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from reporting.table import TABLE

_REDRAW_S = 0.1  # on a terminal
_LINE_S = 10.0  # elsewhere
_WINDOW_S = 60.0  # in which the rate forgets: it follows the run, but not every hiccup
_ERASE = "\r\x1b[K"


class Progress:
    """Shows the progress of `total` steps, of which `start` were done before.

    Whatever else is printed while it is live goes through `note`.

    Args:
      unit: what is counted; for data preparation, say "file" instead of "step".
      stream: a terminal that can erase a line gets the live line.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        *,
        unit: str = "step",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._done, self._unit, self._clock = total, start, unit, clock
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._values: Mapping[str, float | int | None] = {}
        self._updated_at: float | None = None
        self._shown_at = -math.inf
        self._shown_done: int | None = None
        # Sums that decay with time: their quotient is an average over the recent past.
        self._steps = self._seconds = 0.0

    def update(self, done: int, values: Mapping[str, float | int | None] | None = None) -> None:
        """Says that `done` steps are finished.

        Args:
          values: the metrics of the last one, named as in metrics.jsonl.
        """
        now = self._clock()
        if self._updated_at is not None:  # the first step compiles: its time says nothing
            elapsed = now - self._updated_at
            keep = math.exp(-elapsed / _WINDOW_S)
            self._steps = self._steps * keep + done - self._done
            self._seconds = self._seconds * keep + elapsed
        self._done, self._values, self._updated_at = done, values or {}, now
        due = now - self._shown_at >= (_REDRAW_S if self._live else _LINE_S)
        if due or (done >= self._total and self._shown_done != done):
            self._show(now)

    def note(self, text: str) -> None:
        """Prints a full line of its own, above the live one."""
        live = self._live and self._shown_done is not None
        self._stream.write(f"{_ERASE if live else ''}{text}\n")
        if live:
            self._show(self._shown_at)
        self._stream.flush()

    def close(self) -> None:
        """Shows the last state and ends the line."""
        if self._updated_at is not None and self._shown_done != self._done:
            self._show(self._clock())
        if self._live and self._shown_done is not None:
            self._stream.write("\n")
            self._stream.flush()
        self._updated_at = self._shown_done = None

    def _show(self, now: float) -> None:
        self._shown_at, self._shown_done = now, self._done
        if self._live:
            self._stream.write(_ERASE + self._line(_width(self._stream) - 1))
        else:
            self._stream.write(self._line(None) + "\n")
        self._stream.flush()

    def _line(self, width: int | None) -> str:
        """The line; where it is wider than `width`, the least important parts are left out."""
        parts = {"count": f"{self._unit} {self._done}/{self._total}"}
        for name, row in TABLE.items():
            if row.live and (value := self._values.get(name)) is not None:
                parts[name] = row.live(value)
        most, *others = list(parts)[1:] or [""]
        if self._done < self._total and self._steps > 0:
            remaining = (self._total - self._done) * self._seconds / self._steps
            parts["eta"] = f"ETA {duration(remaining)}"
        if width is not None:
            for name in (*reversed(others), "eta", most):
                if len("  ".join(parts.values())) > width:
                    parts.pop(name, None)
        return "  ".join(parts.values())[:width]


def duration(seconds: float) -> str:
    """The two largest units of a time: "45s", "3m12s", "2h05m", "3d04h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # not a real terminal, or one that does not say
        return 80
