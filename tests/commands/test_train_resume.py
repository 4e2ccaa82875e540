"""A run that was stopped goes on as if it had not been."""

import functools
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.running import Commands, assert_same_run, metrics, wait_for


def lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def saving(workdir: Path) -> bool:
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def goes_on(podium: Commands, workdir: Path, finished: Path) -> None:
    again = podium(*podium.train(workdir))
    assert again.returncode == 0, again.stderr
    assert_same_run(workdir, finished)
    assert not saving(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.4, 0.8])
def test_killed_at_a_random_moment(podium: Commands, finished, tmp_path, fraction):
    workdir = tmp_path / "run"
    process = podium.start(*podium.train(workdir))
    wait_for(lambda: lines(workdir) > 10 * fraction, process)
    time.sleep(random.uniform(0, 0.1))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "killed too late"
    goes_on(podium, workdir, finished)


def test_killed_during_a_save(podium: Commands, finished, tmp_path):
    for attempt in range(8):  # a save takes milliseconds here
        workdir = tmp_path / f"run{attempt}"
        process = podium.start(*podium.train(workdir))
        wait_for(functools.partial(saving, workdir), process)
        process.kill()
        process.communicate()
        if saving(workdir):  # half a checkpoint is there, and nobody will finish it
            goes_on(podium, workdir, finished)
            return
    raise AssertionError("no kill hit a save")


def test_finished_run_stays_as_it_is(podium: Commands, finished):
    before = metrics(finished)
    again = podium(*podium.train(finished))
    assert again.returncode == 0, again.stderr
    assert metrics(finished) == before


@pytest.mark.slow
def test_killed_before_its_first_line_of_metrics(podium: Commands, finished, tmp_path):
    """It is its own; a workdir with metrics alone is another's, and is left as it was."""
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    shutil.copy(finished / "run.json", run)  # what is written first, and before any step
    done = podium(*podium.train(run))
    assert done.returncode == 0, done.stderr
    assert_same_run(run, finished)
    shutil.copy(finished / "metrics.jsonl", other)
    refused = podium(*podium.train(other))
    assert refused.returncode == 2 and "metrics.jsonl is of another run" in refused.stderr
    assert not (other / "run.json").exists()
