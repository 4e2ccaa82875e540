"""The files of a run, metrics.jsonl and TensorBoard events; a resumed run continues them.

metrics.jsonl holds one flat JSON object a line, `step` first. A value that is not finite is the
string "NaN", "Infinity" or "-Infinity", as in the JSON of protocol buffers: JSON has no such
numbers, null would hide them, and `float(x)` and `pandas.to_numeric` read both forms. null is a
value that is not known, as the MFU on a device whose peak is not.

TensorBoard gets the same values in one file, one event a line. The events are framed here rather
than by tensorboardX's writers: those keep a queue that their `flush` does not empty, and can only
start new files.

A checkpoint of step k is saved after `flush`, so all that was written up to step k is whole on
disk, whatever happens later. To resume from k is to cut both files at the first thing that is later
than k, or torn: then a resumed run leaves the files of an uninterrupted one.
"""

import json
import math
import mmap
import os
import struct
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from errors import UserError

LINES = "metrics.jsonl"
EVENTS = "tensorboard/events.out.tfevents.0"  # TensorBoard looks for "tfevents" in a file's name
METRICS = (LINES, EVENTS)


def check_fresh(workdir: Path) -> None:
    """Refuses a workdir that holds the metrics of a run, before anything is written there.

    Raises:
      UserError: it does.
    """
    for path in (workdir / LINES, workdir / EVENTS):
        if path.exists():
            raise _of_another(path)


def _of_another(path: Path) -> UserError:
    return UserError(f"{path} is of another run: choose another --workdir")


class MetricsFiles:
    """Appends to the files of the run in `workdir`. One process of a run opens it.

    Args:
      workdir: the run's directory, on a POSIX file system; made if absent.
      resume_step: None starts a new run. k continues from the checkpoint of step k: all that is
        later than k is cut off. 0 is for a run that was killed before its first checkpoint.
      say: is told if a file that should be there is not.

    Raises:
      UserError: resume_step is None and `workdir` holds the metrics of a run.
    """

    def __init__(self, workdir: Path, resume_step: int | None, say: Callable[[str], None]) -> None:
        self._path = workdir / LINES
        events = workdir / EVENTS
        events.parent.mkdir(parents=True, exist_ok=True)
        for path, end_of in ((self._path, _end_of_lines), (events, _end_of_events)):
            if path.exists():
                if resume_step is None:
                    raise _of_another(path)
                os.truncate(path, end_of(path, resume_step))
            elif resume_step:
                say(f"{path} is missing: it starts anew after step {resume_step}")
        self._lines = self._path.open("ab")
        self._events = events.open("ab")
        self._last_step = resume_step or 0
        if not self._events.tell():
            self._add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Appends one line and one event. Both have then left this process: a kill loses neither.

        Args:
          step: number of finished optimizer steps; never less than that of the line before.
          values: Python or NumPy scalars by name, written in this order. None is null in the
            line and left out of the event.
        """
        if step < self._last_step:
            raise ValueError(f"metrics of step {step} come after those of step {self._last_step}")
        self._last_step = step
        line = {"step": step} | {name: _json_number(value) for name, value in values.items()}
        self._lines.write(json.dumps(line, allow_nan=False).encode() + b"\n")
        self._lines.flush()
        scalars = [
            Summary.Value(tag=name, simple_value=_float32(value))
            for name, value in values.items()
            if value is not None
        ]
        self._add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def has(self, step: int, name: str) -> bool:
        """Whether a line of `step` holds `name`. Reads the file from its end back to that step."""
        for _, line in _lines_backwards(self._path):
            at = _step_of_line(line)
            if at < step:
                return False
            if at == step and name in json.loads(line):
                return True
        return False

    def flush(self) -> None:
        """Makes all that was written safe from a loss of power; call it before each checkpoint."""
        for file in (self._lines, self._events):
            os.fsync(file.fileno())

    def close(self) -> None:
        self.flush()
        self._lines.close()
        self._events.close()

    def _add_event(self, event: Event) -> None:
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        crcs = struct.pack("<I", masked_crc32c(length)), struct.pack("<I", masked_crc32c(data))
        self._events.write(length + crcs[0] + data + crcs[1])
        self._events.flush()


def read_metrics(workdir: Path) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Yields (step, values) of the lines of metrics.jsonl; leaves out a torn last line."""
    with (workdir / LINES).open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                values = json.loads(line)
                for name, value in values.items():
                    if isinstance(value, str):
                        values[name] = float(value)  # "NaN" and its kin
                yield values.pop("step"), values


def _json_number(value: float | int | None) -> float | int | str | None:
    if value is None or isinstance(value, int):
        return value
    value = float(value)  # NumPy's scalars too
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float32(value: float) -> float:
    """TensorBoard's scalars are float32: what is too large for it becomes infinite."""
    return float(value) if not abs(value) > 3.4028235e38 else math.copysign(math.inf, value)


def _lines_backwards(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (offset of its end, line), last line first; leaves out a torn last line."""
    if not path.stat().st_size:
        return  # an empty file cannot be mapped
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = data.rfind(b"\n") + 1
        while end:
            start = data.rfind(b"\n", 0, end - 1) + 1
            yield end, data[start:end]
            end = start


def _step_of_line(line: bytes) -> float:
    """The step of a line; infinite, so later than any, if the line is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _end_of_lines(path: Path, step: int) -> int:
    """The offset at which the lines of steps after `step` begin; it is near the end."""
    return next((end for end, line in _lines_backwards(path) if _step_of_line(line) <= step), 0)


def _end_of_events(path: Path, step: int) -> int:
    """The offset at which the events of steps after `step`, or the torn ones, begin.

    Records are chained by their lengths, from the start only, so the whole chain is walked (1.5 s
    for a million); but steps never go back, so few records are parsed.
    """
    size = path.stat().st_size
    if not size:
        return 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        offsets = array("Q", [0])
        while offsets[-1] + 12 <= size:
            (length,) = struct.unpack_from("<Q", data, offsets[-1])
            end = offsets[-1] + 16 + length
            if not length or end > size:
                break
            offsets.append(end)
        records = len(offsets) - 1
        cut = bisect_left(offsets, True, 0, records, key=lambda at: _step_of_event(data, at) > step)
        return offsets[cut]


def _step_of_event(data: mmap.mmap, at: int) -> float:
    """The step of the record at offset `at`; infinite, so later than any, if it is damaged."""
    (length,) = struct.unpack_from("<Q", data, at)
    (crc,) = struct.unpack_from("<I", data, at + 12 + length)
    body = data[at + 12 : at + 12 + length]
    return Event.FromString(body).step if masked_crc32c(body) == crc else math.inf
