"""An end is told to all; a process that is behind, lost or silent is named."""

import threading
import time
from typing import Any

import pytest

from cluster import watch as watching
from cluster.config import WatchConfig
from cluster.coordination import OneProcess
from cluster.watch import State, Watch, behind
from tests.cluster.shared import Shared, Silent


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_TICK_S", 0.02)
    monkeypatch.setattr(watching, "_LEAVE_S", 2.0)
    monkeypatch.setattr(watching, "_STATES_S", 2.0)


class Left:
    """Takes the place of os._exit: notes the code, and lets the test wait for it."""

    def __init__(self) -> None:
        self.code: int | None = None
        self._event = threading.Event()

    def __call__(self, code: int) -> None:
        self.code = code
        self._event.set()

    def wait(self) -> int | None:
        assert self._event.wait(10)
        return self.code


def job(count: int, bounds: WatchConfig | None = None) -> list[tuple[Watch, Left]]:
    values: dict[str, str] = {}
    lefts = [Left() for _ in range(count)]
    return [(Watch(Shared(values, i, count), bounds, left), left) for i, left in enumerate(lefts)]


def test_an_end_is_told_to_all(capfd):
    processes = job(3)
    for watch, _ in processes[:2]:
        watch.__enter__()
    with pytest.raises(AssertionError, match="unreachable"):  # os._exit would not return
        processes[2][0].end("no space left", 2)
    assert [left.wait() for _, left in processes] == [2, 2, 2]
    said = capfd.readouterr().err
    assert said.count("error: process 2: no space left") == 2
    assert said.count("error: no space left") == 1


def test_what_befell_all_alike_has_no_name(capfd):
    processes = job(2)
    processes[0][0].__enter__()
    with pytest.raises(AssertionError):
        processes[1][0].end("they differ", 2, everywhere=True)
    processes[0][1].wait()
    assert capfd.readouterr().err == "error: they differ\n" * 2


def test_a_process_behind_its_bound_says_where_it_stands(capfd):
    (watch, left), (other, other_left) = job(2)
    for w in (watch, other):
        w.__enter__()
        w.at("step 1", 100)
    other.at("step 2", 0.2)  # waits for process 0, which is still in step 1
    assert [left.wait(), other_left.wait()] == [1, 1]
    said = capfd.readouterr().err
    assert said.count("error: step 2 takes longer than 0s; process 0 is behind:") == 2
    assert "step 1" in said and "test_watch.py" in said


def test_progress_counts_from_now():
    alone, left = Watch(OneProcess(), None, left := Left()), left
    with alone:
        alone.at("preparing", 0.5)
        for _ in range(50):
            time.sleep(0.02)
            alone.still()
        assert left.code is None
        assert left.wait() == 1


def test_a_process_that_is_not_heard_of_is_lost(capfd):
    (watch, left), (other, _) = job(2, WatchConfig(lost=0.5))
    with watch:
        other.__enter__()
        time.sleep(1.0)
        assert left.code is None
        other._stop.set()  # as if it were killed
        assert left.wait() == 1
    said = capfd.readouterr().err
    assert "error: process 1 has not been heard of for 0s: killed, stopped or cut off" in said
    assert "did not answer" not in said  # nor waited for


def test_one_that_left_well_is_not_lost():
    (watch, left), (other, other_left) = job(2, WatchConfig(lost=0.5))
    told = threading.Event()

    def end_first() -> None:
        with other:
            told.set()  # it has nothing left to do, and waits for process 0

    thread = threading.Thread(target=end_first)
    with watch:
        thread.start()
        assert told.wait(10)
        time.sleep(1.0)
        assert thread.is_alive()
        assert (left.code, other_left.code) == (None, None)
    thread.join(10)
    assert not thread.is_alive()
    assert (left.code, other_left.code) == (None, None)


def test_process_0_that_has_gone(capfd):
    left = Left()
    watch = Watch(Silent({}, 1, 2), None, left)
    watch.__enter__()
    assert left.wait() == 1
    assert "error: process 0 has gone (UNAVAILABLE: gone)" in capfd.readouterr().err


def test_process_0_that_does_not_answer(capfd):
    class Stopped(Shared):
        def put(self, key: str, value: str) -> Any:
            time.sleep(60)

    left = Left()
    Watch(Stopped({}, 1, 2), WatchConfig(lost=0.1), left).__enter__()
    assert left.wait() == 1
    assert "error: process 0 has not answered for " in capfd.readouterr().err


def test_time_that_the_process_was_stopped_does_not_count(monkeypatch):
    """As after Ctrl-Z: the clock has leapt an hour between two ticks."""
    real, offset = time.monotonic, [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: real() + offset[0])
    watch, left = Watch(OneProcess(), None, left := Left()), left
    with watch:
        watch.at("step 1", 2.0)
        time.sleep(0.2)
        offset[0] = 3600
        time.sleep(0.5)
        assert left.code is None


def test_behind():
    here, there = State(5, "step 5", 3.2, "  stack\n"), State(4, "step 4", 9.9, "  deep\n")
    assert (
        behind({0: here, 1: there}, 2) == "process 1 is behind:\nprocess 1, for 10s step 4:\n  deep"
    )
    assert behind({0: here, 1: here}, 2).startswith("every process is there:\nprocess 0, ")
    one = behind({0: here}, 3)
    assert one.startswith(
        "processes 1, 2 did not answer; of the others the last:\nprocess 0, for 3s"
    )
