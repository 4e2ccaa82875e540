"""A run that was stopped goes on as if it had not been."""

import random
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


@pytest.mark.parametrize("when", ["any moment", "during a save"])
def test_kill_and_resume_is_the_uninterrupted_run(podium: Commands, finished, tmp_path, when):
    workdir = tmp_path / "run"
    process = podium.start(*podium.train(workdir))
    if when == "during a save":
        wait_for(lambda: saving(workdir), process)
    else:
        wait_for(lambda: lines(workdir) > 3, process)
        time.sleep(random.uniform(0, 0.5))
    process.kill()
    process.communicate()
    again = podium(*podium.train(workdir))
    assert again.returncode == 0, again.stderr
    assert_same_run(workdir, finished)
    assert not saving(workdir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_says_how_to_go_on(podium: Commands, finished, tmp_path, number):
    workdir = tmp_path / "run"
    # As many steps as it takes to be signalled in the middle; the schedule is another run's.
    args = podium.train(workdir, "--config.train.steps=4000", "--config.checkpoint.every=1000")
    process = podium.start(*args)
    wait_for(lambda: (workdir / "metrics.jsonl").exists(), process)
    time.sleep(3)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"stopped by {number.name}; step" in out + err
    assert "The same command goes on from there." in out + err
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    assert len(steps) == 1
    assert max(line["step"] for line in metrics(workdir)) == steps[0]


def test_finished_run_stays_as_it_is(podium: Commands, finished):
    before = metrics(finished)
    again = podium(*podium.train(finished))
    assert again.returncode == 0, again.stderr
    assert metrics(finished) == before
