"""A run in stages from its beginning to its report, resumed in stages and without."""

import json
import shutil
from pathlib import Path

import pytest

from tests.running import Commands, assert_same_run, metrics

pytestmark = pytest.mark.slow

COMMON = ("--config.model.num_layers=4", "--config.train.steps=6")
STAGES = (
    "--config.mesh.data=2",
    "--config.mesh.tensor=2",
    "--config.mesh.pipeline=2",
    "--config.mesh.rounds=2",
    "--config.mesh.microbatches=4",
)
EIGHT = {"JAX_NUM_CPU_DEVICES": "8"}


@pytest.fixture(scope="module")
def whole(podium: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("pipeline") / "run"
    done = podium(*podium.train(workdir, *COMMON, *STAGES), env=EIGHT, timeout=500)
    assert done.returncode == 0, done.stderr
    told = (
        "pipeline: 2 stages of 2 x 1 layers, 4 microbatches, which leave a stage without work for "
        "11% of the time"
    )
    assert told in done.stdout + done.stderr
    assert (workdir / "report.html").is_file()
    return workdir


def half(whole: Path, workdir: Path) -> Path:
    shutil.copytree(whole, workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    (workdir / "report.html").unlink()
    return workdir


def test_resumed_in_stages_to_the_bit(podium: Commands, whole: Path, tmp_path: Path) -> None:
    workdir = half(whole, tmp_path / "run")
    done = podium(*podium.train(workdir, *COMMON, *STAGES), env=EIGHT, timeout=500)
    assert done.returncode == 0, done.stderr
    assert_same_run(workdir, whole, 6)


def test_resumed_on_one_device(podium: Commands, whole: Path, tmp_path: Path) -> None:
    workdir = half(whole, tmp_path / "run")
    done = podium(*podium.train(workdir, *COMMON), timeout=500)
    assert done.returncode == 0, done.stderr
    for one, other in zip(metrics(workdir), metrics(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_eval_and_generate(podium: Commands, whole: Path) -> None:
    """As one device sees it: also with stages, of which generating has none."""
    results = []
    for flags in ((), ("--mesh=pipeline=2,fsdp=2,tensor=2", "--batch_size=16")):
        done = podium("eval.py", f"--workdir={whole}", *flags, env=EIGHT if flags else None)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.splitlines()[-1]))
    assert results[1] == pytest.approx(results[0], rel=1e-6)
    last = next(line for line in metrics(whole)[::-1] if "eval/loss" in line)
    assert last["eval/loss"] == pytest.approx(results[0]["loss"], rel=1e-5)
    refused = podium("generate.py", f"--workdir={whole}", "--mesh=pipeline=8", env=EIGHT)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --mesh: pipeline=8: a token would wait")


def test_two_processes_of_a_stage_each(podium: Commands, whole: Path, tmp_path: Path) -> None:
    """Layers in the order of depth go from process to process, to be saved and to draw samples."""
    args = (*COMMON, "--config.mesh.data=1", *STAGES[2:4])
    for ended in podium.pair(podium.train(tmp_path / "run", *args)).wait(500):
        assert ended.code == 0, ended.err
    for one, other in zip(metrics(tmp_path / "run"), metrics(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    again = half(tmp_path / "run", tmp_path / "again")
    for ended in podium.pair(podium.train(again, *args)).wait(500):
        assert ended.code == 0, ended.err
    assert_same_run(again, tmp_path / "run", 6)
