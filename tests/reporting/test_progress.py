"""What a reader sees of a run's progress, on a terminal and elsewhere."""

import io
import os
import re
from collections.abc import Iterable, Mapping

import pytest

from reporting import progress
from reporting.progress import Progress, duration
from reporting.table import short

VALUES: dict[str, float | int | None] = {
    "loss": 3.2144,
    "bits_per_byte": 1.721,
    "time/tokens_per_s": 2112.0,
    "time/wait_percent": 0.3,
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal as far as `Progress` uses one: carriage return, erase to the end, newline."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines = [""]
        for part in re.findall(r"\r\x1b\[K|\n|[^\r\n\x1b]+", self.getvalue()):
            if part == "\r\x1b[K":
                lines[-1] = ""
            elif part == "\n":
                lines.append("")
            else:
                lines[-1] += part
        return lines


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_width", lambda stream: 100)
    return Terminal()


def run(
    bar: Progress,
    clock: Clock,
    steps: Iterable[int],
    seconds: float,
    values: Mapping[str, float | int | None] | None = VALUES,
) -> None:
    for step in steps:
        clock.now += seconds
        bar.update(step, values)


def test_the_line_of_a_terminal(terminal: Terminal, clock: Clock) -> None:
    bar = Progress(4000, 1000, stream=terminal, clock=clock)
    run(bar, clock, range(1001, 1201), 0.5)
    expected = "step 1200/4000  loss 3.214  1.72 bits/byte  2.1k tok/s  wait 0.3%  ETA 23m20s"
    assert terminal.screen() == [expected]


def test_notes_stand_above_the_live_line(terminal: Terminal, clock: Clock) -> None:
    bar = Progress(10, stream=terminal, clock=clock)
    bar.note("starting")
    run(bar, clock, range(1, 4), 1.0)
    bar.note("saved checkpoint 3")
    assert terminal.screen() == [
        "starting",
        "saved checkpoint 3",
        "step 3/10  loss 3.214  1.72 bits/byte  2.1k tok/s  wait 0.3%  ETA 7s",
    ]
    run(bar, clock, range(4, 11), 1.0)
    bar.close()
    bar.note("done")
    last = "step 10/10  loss 3.214  1.72 bits/byte  2.1k tok/s  wait 0.3%"
    assert terminal.screen() == ["starting", "saved checkpoint 3", last, "done", ""]


def test_close_shows_the_last_update_of_an_interrupted_run(
    terminal: Terminal, clock: Clock
) -> None:
    bar = Progress(100, stream=terminal, clock=clock)
    run(bar, clock, range(1, 8), 0.01)
    bar.close()
    bar.close()
    assert terminal.screen()[0].startswith("step 7/100")
    assert terminal.screen()[1:] == [""]


def test_the_terminal_is_not_redrawn_at_every_step(terminal: Terminal, clock: Clock) -> None:
    bar = Progress(100_000, stream=terminal, clock=clock)
    run(bar, clock, range(1, 1001), 0.001)  # one second
    assert 8 <= terminal.getvalue().count("\r") <= 11


@pytest.mark.parametrize("width", range(1, 100))
def test_the_line_fits_the_terminal(
    width: int, terminal: Terminal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_width", lambda stream: width)
    bar = Progress(4000, stream=terminal, clock=clock)
    run(bar, clock, range(1, 3), 1.0)
    (line,) = terminal.screen()
    assert len(line) < width or width == 1
    if width > 40:
        assert "loss" in line and "ETA" in line  # what matters most goes last


def test_width_of_what_is_no_terminal_and_of_one_that_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert progress._width(io.StringIO()) == 80
    with open(os.devnull) as file:
        assert progress._width(file) == 80
        monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((0, 0)))
        assert progress._width(file) == 80


@pytest.mark.parametrize("dumb", [False, True])
def test_plain_lines_elsewhere(dumb: bool, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    stream = Terminal() if dumb else io.StringIO()
    bar = Progress(100, stream=stream, clock=clock)
    run(bar, clock, range(1, 101), 0.5)
    bar.note("saved")
    bar.close()
    lines = stream.getvalue().splitlines()
    shown = [line.split()[1] for line in lines[:-1]]
    assert shown == ["1/100", "21/100", "41/100", "61/100", "81/100", "100/100"]
    assert lines[-1] == "saved"
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()


def test_plain_close_shows_what_was_not_shown_yet(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Progress(100, stream=stream, clock=clock)
    run(bar, clock, range(1, 8), 0.5)
    bar.close()
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["1/100", "7/100"]


def test_the_eta_ignores_the_first_step_and_follows_the_rate(
    terminal: Terminal, clock: Clock
) -> None:
    bar = Progress(2000, stream=terminal, clock=clock)
    run(bar, clock, [1], 500.0)  # compiles
    assert "ETA" not in terminal.screen()[0]
    run(bar, clock, range(2, 1001), 1.0)
    assert terminal.screen()[0].endswith("ETA 16m40s")
    run(bar, clock, range(1001, 1500), 2.0)  # slower from here on: 501 steps are left
    assert terminal.screen()[0].endswith("ETA 16m42s")


def test_a_unit_without_metrics(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Progress(3, unit="file", stream=stream, clock=clock)
    run(bar, clock, range(1, 4), 20.0, None)
    assert stream.getvalue() == "file 1/3\nfile 2/3  ETA 20s\nfile 3/3\n"


def test_a_loss_that_is_not_finite_shows(clock: Clock) -> None:
    stream = io.StringIO()
    bar = Progress(3, stream=stream, clock=clock)
    bar.update(1, {"loss": float("nan"), "bits_per_byte": None})
    assert stream.getvalue() == "step 1/3  loss nan\n"


def test_durations() -> None:
    seconds = [0, 59.4, 59.6, 192, 7500, 273_700]
    assert [duration(s) for s in seconds] == ["0s", "59s", "1m00s", "3m12s", "2h05m", "3d04h"]


def test_short_numbers() -> None:
    numbers = [0, 0.42, 7.3, 9.99, 512, 999.7, 2112, 35_000, 999_900, 1.3e6, 8.03e9, 1.5e13]
    texts = ["0", "0.42", "7.3", "10", "512", "1.0k", "2.1k", "35k", "1.0M", "1.3M", "8.0B", "15T"]
    assert [short(n) for n in numbers] == texts
