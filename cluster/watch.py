"""An error ends all processes; so does a process that dies, or one that hangs.

Two threads in each process. One talks: it writes what this process is at, and reads whether
another has ended the job. The other has a clock and never waits for anything: it ends the job when
this process is at one thing for longer than its bound, or when nobody answers any more. Both work
while the main thread is inside a collective that will never end.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from cluster.agreement import processes
from cluster.config import WatchConfig
from cluster.coordination import KeyValues, LostCoordinator

_ALL = -1  # in the place of a process: every one of them
_TICK_S = 1.0
_LEAVE_S = 10.0  # for the others to hear of an end before process 0, and the store with it, goes
_FRAMES = 12  # of a stack
_STACKS = 2  # in the message
_STATES_S = 5.0  # for the others to say where they are


class _End(NamedTuple):
    """The word that ends a job: by which process, why, with which exit code, and whether all
    processes should say where they are."""

    by: int
    line: str
    code: int
    ask: bool


class State(NamedTuple):
    """Where a process is.

    Attributes:
      position: how many things it has begun.
      at: the last of them.
      age_s: for how long.
      stack: of its main thread.
    """

    position: int
    at: str
    age_s: float
    stack: str


class Watch:
    """Watches over this process and the others, within its `with` block.

    Args:
      others: the processes.
      bounds: how long things may take; may be replaced later.
      leave: ends the process at once, whatever its threads do.
    """

    def __init__(
        self,
        others: KeyValues,
        bounds: WatchConfig | None = None,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self.others = others
        self.bounds = bounds or WatchConfig()
        self._leave = leave
        self._main = threading.get_ident()
        self._at, self._bound, self._age = "starting", self.bounds.start, 0.0
        self._position = 0
        self._unanswered = 0.0
        self._lost: list[int] = []
        self._ending = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._talk, self._time)
        ]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._see_off()
            self._stop.set()
            for thread in self._threads:
                thread.join(2 * _TICK_S)
            with contextlib.suppress(LostCoordinator):  # it had nothing left to wait for
                self.others.put(f"beat/{self.others.index}", "gone")

    def _see_off(self) -> None:
        """Process 0 writes the report when the others have nothing left to do: they watch on."""
        if self.others.index:
            self.at("waiting for process 0 to end", self.bounds.save)
            with contextlib.suppress(LostCoordinator):
                while self.others.look("beat/0") != "gone":
                    time.sleep(_TICK_S / 4)

    def at(self, what: str, bound_s: float) -> None:
        """Says what this process begins now, in words that follow "while", and its bound.

        All processes of a run say the same things in the same order: so the one that has said
        fewer is behind.
        """
        self._at, self._bound, self._age = what, bound_s, 0.0
        self._position += 1

    @property
    def now(self) -> str:
        """What this process is at."""
        return self._at

    def still(self) -> None:
        """Says that what this process is at makes progress: its time counts from now."""
        self._age = 0.0

    def end(self, line: str, code: int, everywhere: bool = False) -> NoReturn:
        """Ends all processes: the others print `line` and exit with `code`; so does this one.

        Process 0 leaves last: it holds the store through which the others hear of it.

        Args:
          line: the error.
          code: the exit code.
          everywhere: it happened on every process alike, and needs no name of one.
        """
        with self._ending:
            self._end(_End(_ALL if everywhere else self.others.index, line, code, ask=False))
        raise AssertionError("unreachable")

    def _end(self, mine: "_End") -> None:
        try:
            if not self.others.put_first("end", json.dumps(mine)):
                mine = _End(*json.loads(self.others.look("end") or json.dumps(mine)))
        except LostCoordinator:
            pass  # nobody will hear of it
        self._obey(mine)

    def _obey(self, end: "_End") -> None:
        """Leaves as the process that ended the job says."""
        line = end.line if end.by in (self.others.index, _ALL) else f"process {end.by}: {end.line}"
        self._print(self._verdict(end) if end.ask else line)
        self._go(end.code)

    def _verdict(self, end: "_End") -> str:
        """Which processes are behind, and where they stand in the code."""
        mine = State(self._position, self._at, self._age, self._stack())
        states: dict[int, str] = {}
        try:
            self.others.put(f"state/{self.others.index}", json.dumps(mine))
            if self.others.index != end.by:
                return self.others.wait("verdict", 2 * _STATES_S) or end.line
            deadline = time.monotonic() + _STATES_S
            while time.monotonic() < deadline and len(states) < self.others.count:
                states = self.others.look_all("state")
                time.sleep(0.1)
            known = {index: State(*json.loads(text)) for index, text in states.items()}
            verdict = f"{end.line}; {behind(known, self.others.count)}"
            self.others.put("verdict", verdict)
        except LostCoordinator:
            return f"{end.line}; process 0 does not answer"
        return verdict

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._main)
        return "".join(traceback.format_stack(frame)[-_FRAMES:]) if frame else ""

    def _print(self, line: str) -> None:
        sys.stdout.flush()
        print(f"error: {line}", file=sys.stderr, flush=True)

    def _go(self, code: int) -> None:
        """Leaves; process 0 when all others have heard, or have had the time to."""
        with contextlib.suppress(LostCoordinator):
            self.others.put(f"heard/{self.others.index}", "")
            if self.others.index == 0:
                self._wait_for_all()
        self._leave(code)

    def _wait_for_all(self) -> None:
        missing = [index for index in range(self.others.count) if index not in self._lost]
        deadline = time.monotonic() + _LEAVE_S
        while missing and time.monotonic() < deadline:
            time.sleep(0.1)
            heard = self.others.look_all("heard")
            missing = [index for index in missing if index not in heard]
        if missing:
            self._print(f"{processes(missing)} did not answer: killed, stopped or cut off")

    def _talk(self) -> None:
        """Writes this process's beat, reads the end of the job, and on process 0 all beats."""
        count, heard = 0, dict.fromkeys(range(self.others.count), ("", 0.0))
        while not self._stop.wait(_TICK_S):
            count += 1
            try:
                self.others.put(f"beat/{self.others.index}", f"{count} {self._at}")
                message = self.others.look("end")
                if self.others.index == 0:
                    self._listen(heard)
            except LostCoordinator as error:
                # XLA ends this process too, at the same moment and with more words.
                with self._ending:
                    self._print(f"process 0 has gone ({error}): see what it prints")
                    self._leave(1)
                return
            self._unanswered = 0.0
            if message is not None:
                with self._ending:
                    self._obey(_End(*json.loads(message)))
                return

    def _listen(self, heard: dict[int, tuple[str, float]]) -> None:
        beats = self.others.look_all("beat")
        lost = self._lost
        for index, (last, silent) in heard.items():
            beat = beats.get(index, "")
            heard[index] = (beat, 0.0 if beat != last else silent + _TICK_S)
            if heard[index][1] > self.bounds.lost and beat != "gone":
                lost.append(index)
        if lost:
            was = beats.get(lost[0], "").partition(" ")[2] or "starting"
            with self._ending:
                self._end(
                    _End(
                        _ALL,
                        f"{processes(lost)} {'has' if len(lost) == 1 else 'have'} not been heard "
                        f"of for {self.bounds.lost:.0f}s: killed, stopped or cut off (last seen "
                        f"{was})",
                        code=1,
                        ask=False,
                    )
                )

    def _time(self) -> None:
        """Counts how long this process is at one thing, and how long nobody has answered."""
        before = time.monotonic()
        while not self._stop.wait(_TICK_S):
            now = time.monotonic()
            # A longer gap is a time in which this very thread did not run: nobody's fault.
            gap, before = min(now - before, 3 * _TICK_S), now
            self._age += gap
            self._unanswered += gap
            if self._age > self._bound and self._ending.acquire(blocking=False):
                line = f"{self._at} takes longer than {self._bound:.0f}s"
                self._end(_End(self.others.index, line, 1, ask=True))
                return
            if self._unanswered > self.bounds.lost + 2 and self._ending.acquire(blocking=False):
                self._print(
                    f"process 0 has not answered for {self._unanswered:.0f}s: stopped or cut off"
                )
                self._leave(1)
                return


def behind(states: Mapping[int, State], count: int) -> str:
    """Which processes are behind the others, from what each of them says.

    Args:
      states: by process; one that does not answer is not there.
      count: of processes.
    """
    silent = [index for index in range(count) if index not in states]
    least = min(state.position for state in states.values())
    late = [index for index, state in states.items() if state.position == least]
    if silent:
        told = f"{processes(silent)} did not answer; of the others the last"
    elif len(late) < count:
        told = f"{processes(late)} {'is' if len(late) == 1 else 'are'} behind"
    else:
        told = "every process is there" if count > 1 else "it stands at"
    stacks = "\n".join(
        f"process {index}, for {state.age_s:.0f}s {state.at}:\n{state.stack}"
        for index, state in ((index, states[index]) for index in late[:_STACKS])
    )
    return f"{told}:\n{stacks}".rstrip()
