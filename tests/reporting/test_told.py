"""What a real run says of what it will not do, and what it does not keep."""

import shutil
from pathlib import Path

import pytest

from tests.running import ROOT, Commands

FAULTY = str(ROOT / "tests" / "commands" / "faulty.py")


def test_a_step_that_breaks_the_parameters_is_never_saved(podium: Commands, tmp_path: Path) -> None:
    """Its loss is finite: that is from before the update."""
    huge = "--config.optimizer.learning_rate=1e38"
    args = podium.train(tmp_path / "run", huge, "--config.checkpoint.every=1")
    done = podium(*args)
    assert done.returncode == 2, done.stderr
    assert "step 1 gave numbers that are not finite (param_norm inf)" in done.stderr
    assert "Traceback" not in done.stderr
    saved = [p.name for p in (tmp_path / "run" / "checkpoints").glob("*") if p.name.isdigit()]
    assert saved == []


@pytest.fixture
def half(finished: Path, tmp_path: Path) -> Path:
    """The finished run, put back to step 9 of 12."""
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / "checkpoints" / "12")
    return workdir


def test_what_is_missing_is_said(podium: Commands, half: Path) -> None:
    (half / "metrics.jsonl").unlink()
    done = podium(*podium.train(half, "--profile=2:3"))
    assert done.returncode == 0, done.stderr
    assert f"{half}/metrics.jsonl is missing: it starts anew after step 9" in done.stderr
    assert "--profile=2:3: step 9 is already done, so nothing is traced" in done.stderr
    assert "12 steps, 9 of them without metrics" in (half / "report.html").read_text()


def test_a_report_does_not_outlive_the_steps_it_is_of(podium: Commands, half: Path) -> None:
    args = podium.train(half)
    done = podium.with_env({"FAULT": "raise:2:0"})(FAULTY, *args[1:])
    assert done.returncode == 1 and "a fault" in done.stderr
    assert not (half / "report.html").exists()
