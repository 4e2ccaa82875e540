"""Numbers on their way to the files: one step behind, all of them, and only finite ones go on."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from reporting.metrics import MetricsFiles, read_metrics
from reporting.recorder import Recorder, Work

GOOD = {
    "loss": 2.0,
    "z_loss": 0.5,
    "grad_norm": 1.0,
    "param_norm": 9.0,
    "learning_rate": 1e-3,
    "tokens": 30,
    "bytes": 120,
}


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class Run:
    """A recorder with its files and its clock, a second of which a step takes."""

    def __init__(self, workdir: Path, tokens: int = 0, peak: float | None = 1e13) -> None:
        self.workdir, self.clock = workdir, Clock()
        self.files = MetricsFiles(workdir, None, print)
        self.recorder = Recorder(
            self.files,
            None,
            tokens=tokens,
            work=lambda step: Work(64, 1e12),
            peak_flops=peak,
            clock=self.clock,
        )

    def add(self, step: int, stop: jax.Array | bool = False, **values: Any) -> None:
        self.clock.now += 1
        metrics = {name: jnp.asarray(value) for name, value in (GOOD | values).items()}
        self.recorder.add(step, metrics, 0.25, stop)

    def drain(self) -> None:
        self.clock.now += 0.5
        self.recorder.drain()

    def lines(self) -> list[tuple[int, dict[str, Any]]]:
        return list(read_metrics(self.workdir))

    def steps(self) -> list[int]:
        return [step for step, _ in self.lines()]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.files.close()


def test_lines_come_one_step_behind_and_drain_brings_the_last(run: Run) -> None:
    run.add(1)
    assert run.steps() == []
    run.add(2)
    assert run.steps() == [1]
    run.drain()
    assert run.steps() == [1, 2]
    run.drain()  # there is nothing left
    assert run.steps() == [1, 2]
    run.add(3)
    assert run.steps() == [1, 2]
    run.drain()
    assert run.steps() == [1, 2, 3]


def test_what_a_line_holds(run: Run) -> None:
    run.add(1, loss=math.log(4))
    run.recorder.restart_clock()
    run.drain()
    ((_, line),) = run.lines()
    assert line == {
        "tokens": 30,
        "loss": pytest.approx(math.log(4)),
        "perplexity": pytest.approx(4.0),
        "bits_per_byte": pytest.approx(2 * 30 / 120),
        "z_loss": 0.5,
        "grad_norm": 1.0,
        "param_norm": 9.0,
        "learning_rate": pytest.approx(1e-3),
        "time/step_s": 0.5,
        "time/wait_percent": 50.0,
        "time/tokens_per_s": 128.0,
        "time/tflops": 2.0,
        "time/mfu_percent": pytest.approx(20.0),
    }


def test_a_step_that_is_left_out_has_no_loss(run: Run) -> None:
    run.add(1, tokens=0, bytes=0, loss=0.0)
    run.drain()
    ((_, line),) = run.lines()
    assert line["loss"] is line["bits_per_byte"] is line["perplexity"] is None
    assert line["tokens"] == 0 and line["grad_norm"] is not None


def test_without_a_known_peak_there_is_no_mfu(tmp_path: Path) -> None:
    run = Run(tmp_path, peak=None)
    run.add(1)
    run.drain()
    run.files.close()
    assert run.lines()[0][1]["time/mfu_percent"] is None


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_tokens_add_up_over_restarts(dtype: type, tmp_path: Path) -> None:
    run = Run(tmp_path, tokens=2**40 + 1)
    for step, tokens in ((6, 3), (7, 5)):
        run.add(step, tokens=dtype(tokens), bytes=dtype(9))
    assert run.recorder.tokens == 2**40 + 4  # those of the last step are not known yet
    run.drain()
    run.files.close()
    assert run.recorder.tokens == 2**40 + 9
    assert [line["tokens"] for _, line in run.lines()] == [2**40 + 4, 2**40 + 9]


def test_time_that_was_not_spent_on_steps_is_left_out(run: Run) -> None:
    run.add(1)
    run.drain()
    run.clock.now += 100  # an evaluation
    run.recorder.restart_clock()
    run.add(2)
    run.drain()
    assert [line["time/step_s"] for _, line in run.lines()] == [1.5, 1.5]


def test_a_vote_counts_when_its_step_is_read(run: Run) -> None:
    run.add(1)
    run.add(2, stop=jnp.asarray(2))  # a sum over processes
    assert not run.recorder.stop
    run.add(3, stop=jnp.asarray(2))
    assert run.recorder.stop


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", GOOD)
def test_every_number_must_be_finite(name: str, value: float, run: Run) -> None:
    run.add(1, **{name: jnp.float32(value)})
    with pytest.raises(UserError, match=rf"step 1 gave .* \({name} {value}\)") as raised:
        run.drain()
    assert "\n" not in str(raised.value) and "config.optimizer.learning_rate" in str(raised.value)
    assert run.steps() == [1]  # the line shows what it was


def test_the_message_names_all_that_is_wrong(run: Run) -> None:
    run.add(1, grad_norm=math.nan, param_norm=math.inf)
    with pytest.raises(UserError, match=r"\(grad_norm nan, param_norm inf\)"):
        run.drain()


def test_a_metric_that_is_added_must_be_finite_too(run: Run) -> None:
    run.add(1, balance=math.nan)
    with pytest.raises(UserError, match="balance nan"):
        run.drain()


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("bad", range(1, 7))
def test_no_step_with_a_bad_number_is_saved(bad: int, every: int, run: Run) -> None:
    """The bad step may be the last before a save, or an earlier one."""
    saved = []
    with pytest.raises(UserError, match=f"step {bad} "):
        for step in range(1, 7):
            run.add(step, grad_norm=math.nan if step == bad else 1.0)
            if step % every == 0 or step == 6:
                run.drain()
                saved.append(step)
    assert saved == list(range(every, bad, every))
