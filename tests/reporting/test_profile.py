"""Traces of chosen steps: those alone, closed however a run ends, never left out unsaid."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from errors import UserError
from reporting.profile import Profile


class Tracer:
    """Notes what JAX's profiler is asked for, as far as Profile asks."""

    def __init__(self) -> None:
        self.step = 0
        self.traced: list[int] = []
        self.running = False

    def start_trace(self, directory: str) -> None:
        assert not self.running
        self.running, self.directory = True, directory

    def stop_trace(self) -> None:
        assert self.running
        self.running = False

    def run(self, profile: Profile, start: int, steps: int) -> list[Path]:
        told = []
        for step in range(start + 1, steps + 1):
            profile.before(step)
            if self.running:
                self.traced.append(step)
            if where := profile.after(step, jnp.zeros(())):
                told.append(where)
        return told


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    tracer = Tracer()
    monkeypatch.setattr(jax.profiler, "start_trace", tracer.start_trace)
    monkeypatch.setattr(jax.profiler, "stop_trace", tracer.stop_trace)
    return tracer


@pytest.mark.parametrize("text", ["a:b", "3", "3:", ":3", "0:2", "5:4", "-1:2", "1:2:3", "²:3"])
def test_what_is_no_range_of_steps_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give FIRST:LAST, such as --profile=10:12"):
        Profile(text, 100, tmp_path)


def test_steps_that_the_run_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--profile=99:101: the run has 100 steps"):
        Profile("99:101", 100, tmp_path)
    Profile("99:100", 100, tmp_path)


@pytest.mark.parametrize(
    ("start", "traced", "said"),
    [
        (0, [5, 6, 7], None),
        (4, [5, 6, 7], None),
        (5, [6, 7], "step 5 is already done, so the trace begins at step 6"),
        (6, [7], "step 6 is already done, so the trace begins at step 7"),
        (7, [], "step 7 is already done, so nothing is traced"),
        (9, [], "step 9 is already done, so nothing is traced"),
    ],
)
def test_which_steps(
    start: int, traced: list[int], said: str | None, tracer: Tracer, tmp_path: Path
) -> None:
    lines: list[str] = []
    with Profile("5:7", 10, tmp_path) as profile:
        profile.begin(start, lines.append)
        told = tracer.run(profile, start, 10)
    assert tracer.traced == traced and not tracer.running
    assert told == [tmp_path / "profile"] * bool(traced)
    assert lines == [f"--profile=5:7: {said}"] * bool(said)


def test_without_the_flag_nothing_happens(tracer: Tracer, tmp_path: Path) -> None:
    lines: list[str] = []
    with Profile(None, 10, tmp_path) as profile:
        profile.begin(3, lines.append)
        assert tracer.run(profile, 3, 10) == []
    assert tracer.traced == [] and lines == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("step 6 gave nan"), None])
def test_a_trace_that_is_cut_short_is_closed_and_said(
    error: type[BaseException] | BaseException | None, tracer: Tracer, tmp_path: Path
) -> None:
    lines: list[str] = []

    def stop_early() -> None:
        with Profile("5:7", 10, tmp_path) as profile:
            profile.begin(0, lines.append)
            assert tracer.run(profile, 0, 6) == []
            assert tracer.running
            if error is not None:
                raise error

    if error is None:
        stop_early()
    else:
        with pytest.raises(error if isinstance(error, type) else type(error)):
            stop_early()
    assert not tracer.running and tracer.traced == [5, 6]
    assert lines == [f"the trace ends before step 7: {tmp_path / 'profile'}"]


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_directory_has_a_trace_of_those_steps(interrupted: bool, tmp_path: Path) -> None:
    """By JAX's own profiler: each step is a function of another name, which the trace holds."""

    def step(number: int) -> jax.Array:
        def work(x: jax.Array) -> jax.Array:
            return jnp.sum(x * number)

        work.__name__ = f"step_number_{number}"
        return jax.jit(work)(jnp.ones(8))

    with Profile("2:3", 4, tmp_path) as profile:
        profile.begin(0, print)
        for number in range(1, 3 if interrupted else 5):
            profile.before(number)
            profile.after(number, step(number))
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    events = [
        event.name
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
    ]
    held = [n for n in range(1, 5) if any(f"step_number_{n}" in name for name in events)]
    assert held == ([2] if interrupted else [2, 3])
