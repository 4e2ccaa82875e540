"""A run that was stopped goes on as if it had not been."""

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.commands.conftest import Commands, metrics


def saved(workdir: Path, step: int) -> Any:
    manager = ocp.CheckpointManager(workdir / "checkpoints")
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            params=ocp.args.StandardRestore(), optimizer=ocp.args.StandardRestore()
        ),
    )
    manager.close()
    return jax.tree.map(np.asarray, dict(restored))


def assert_same_run(workdir: Path, other: Path, step: int = 12) -> None:
    assert metrics(workdir) == metrics(other)
    a, b = saved(workdir, step), saved(other, step)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=str(path))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(0.001)


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


def test_two_processes_train_as_one(podium: Commands, finished, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workdir = tmp_path / "run"
    both = [
        podium.start(
            *podium.train(
                workdir,
                "--config.mesh.data=2",
                "--config.mesh.fsdp=1",
                f"--coordinator=127.0.0.1:{port}",
                "--num_processes=2",
                f"--process_id={i}",
            )
        )
        for i in range(2)
    ]
    ends = [process.communicate(timeout=180) for process in both]
    for process, (_, err) in zip(both, ends, strict=True):
        assert process.returncode == 0, err
    for two, one in zip(metrics(workdir), metrics(finished), strict=True):
        assert two.keys() == one.keys()
        for key, value in one.items():
            if value is not None:
                assert two[key] == pytest.approx(value, rel=1e-5), key
