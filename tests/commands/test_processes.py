"""Two real processes: they train as one, and whatever befalls one of them ends both, by name."""

import shutil
import signal
import time
from pathlib import Path

import pytest

from sharding.config import AXES
from tests.running import ROOT, Commands, Ended, assert_same_run, metrics, wait_for

LONG = ("--config.train.steps=100000", "--config.checkpoint.every=1000")
FAULTY = str(ROOT / "tests" / "commands" / "faulty.py")


def errors(process: Ended) -> list[str]:
    """What a process says last, without XLA's own words."""
    return [line for line in process.err.splitlines() if line.startswith("error: ")]


def in_the_loop(workdir: Path) -> bool:
    path = workdir / "metrics.jsonl"
    return path.exists() and path.read_text().count("\n") > 2


SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_killed_and_resumed_is_the_uninterrupted_run(podium: Commands, tmp_path, axis):
    mesh = ("--config.mesh.data=1", f"--config.mesh.{axis}=2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for ended in podium.pair(podium.train(whole, *mesh)).wait(240):
        assert ended.code == 0, ended.err
    pair = podium.pair(podium.train(broken, *mesh))
    wait_for(lambda: in_the_loop(broken), pair.processes[0])
    pair.kill()
    assert len(metrics(broken)) < len(metrics(whole)), "killed too late"
    for ended in podium.pair(podium.train(broken, *mesh)).wait(240):
        assert ended.code == 0, ended.err
    assert_same_run(broken, whole)


EXPERTS = ("--config.model.moe.num_experts=4", "--config.model.moe.expert_mlp_dim=64")


@pytest.fixture(scope="module")
def finished_with_experts(podium: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run with experts, of one process."""
    workdir = tmp_path_factory.mktemp("experts") / "run"
    done = podium(*podium.train(workdir, *EXPERTS))
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.parametrize(
    "axis", ["data", *(pytest.param(axis, marks=SLOW) for axis in AXES if axis != "data")]
)
def test_two_processes_train_as_one(
    podium: Commands, request: pytest.FixtureRequest, tmp_path: Path, axis: str
) -> None:
    """With an axis of the mesh between them."""
    workdir, experts = tmp_path / "run", axis == "expert"
    finished = request.getfixturevalue("finished_with_experts" if experts else "finished")
    mesh = ("--config.mesh.data=1", f"--config.mesh.{axis}=2", *(EXPERTS if experts else ()))
    for ended in podium.pair(podium.train(workdir, *mesh)).wait(240):
        assert ended.code == 0, ended.err
        assert not errors(ended)
    assert list((workdir / "xla").iterdir())  # compiled programs, where both can read them
    for two, one in zip(metrics(workdir), metrics(finished), strict=True):
        assert two.keys() == one.keys()
        for key, value in one.items():
            if value is not None:
                assert two[key] == pytest.approx(value, rel=1e-5), key


@SLOW
@pytest.mark.parametrize("which", [0, 1])
def test_a_signal_to_one_stops_both_after_the_same_step(podium: Commands, tmp_path, which):
    workdir = tmp_path / "run"
    pair = podium.pair(podium.train(workdir, *LONG))
    wait_for(lambda: in_the_loop(workdir), pair.processes[0])
    pair.processes[which].send_signal(signal.SIGTERM)
    first, other = pair.wait(30)
    assert (first.code, other.code) == (0, 0), first.err + other.err
    saved = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    assert saved == [max(line["step"] for line in metrics(workdir))]
    who = "SIGTERM" if which == 0 else "another process"
    assert f"stopped by {who}; step {saved[0]} is saved." in first.err


def test_a_signal_before_the_loop_ends_both(podium: Commands, tmp_path):
    pair = podium.pair(podium.train(tmp_path / "run"))
    wait_for(lambda: (tmp_path / "run" / "run.json").exists(), pair.processes[0])
    pair.processes[1].send_signal(signal.SIGTERM)
    first, other = pair.wait(30)
    assert (first.code, other.code) == (143, 143)
    assert errors(other)[0].startswith("error: stopped by SIGTERM while ")
    assert errors(first)[0].startswith("error: process 1: stopped by SIGTERM while ")


def test_different_configs(podium: Commands, tmp_path):
    args = podium.train(tmp_path / "run")
    for ended in podium.pair(args, [*args, "--config.train.seed=7"]).wait(60):
        assert ended.code == 2
        (line,) = errors(ended)
        assert "config.train.seed is 0 on process 0, 7 on process 1" in line


@SLOW
def test_different_workdirs(podium: Commands, tmp_path):
    pair = podium.pair(podium.train(tmp_path / "one"), podium.train(tmp_path / "two"))
    for ended in pair.wait(60):
        assert ended.code == 2
        (line,) = errors(ended)
        assert "the workdir is the one with mark" in line and "another one" in line
        assert "on process 1" in line


def test_different_data(podium: Commands, tmp_path):
    """The same path on two hosts, but not the same files."""
    args = [str(ROOT / "train.py"), *podium.train(tmp_path / "run")[1:]]
    args = [a.replace("configs/", f"{ROOT}/configs/") for a in args if "data_dir" not in a]
    folders = []
    for name, seed in (("a", 0), ("b", 1)):
        folder = tmp_path / name
        shutil.copytree(podium.verses(seed), folder / "tfds")
        folders.append(folder)
    args.append("--config.data.data_dir=tfds")
    env = [{"PODIUM_CACHE": str(folder / "cache")} for folder in folders]
    for ended in podium.pair(args, args, env=env, cwd=folders).wait(120):
        assert ended.code == 2, ended.err
        (line,) = errors(ended)
        assert "the data stream is " in line


def test_different_versions(podium: Commands, tmp_path):
    args = [FAULTY, *podium.train(tmp_path / "run")[1:]]
    for ended in podium.pair(args, env=[{"FAULT": "version:0:1"}] * 2).wait(60):
        assert ended.code == 2
        (line,) = errors(ended)
        assert "jax is " in line and "9.9.9 on process 1" in line


@pytest.mark.slow
def test_a_lock_that_process_0_alone_meets(podium: Commands, tmp_path):
    workdir = tmp_path / "run"
    alone = podium.start(*podium.train(workdir, *LONG))
    wait_for(lambda: in_the_loop(workdir), alone)
    first, other = podium.pair(podium.train(workdir, *LONG)).wait(60)
    alone.kill()
    assert (first.code, other.code) == (2, 2)
    assert "is in use by process" in errors(first)[0]
    assert errors(other)[0].startswith("error: process 0: ")


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, pytest.param(1, marks=SLOW)])
def test_an_error_on_one_ends_both(podium: Commands, tmp_path, which):
    args = [FAULTY, *podium.train(tmp_path / "run", *LONG)[1:]]
    pair = podium.pair(args, env=[{"FAULT": f"raise:5:{which}"}] * 2)
    ended = pair.wait(90)
    assert [e.code for e in ended] == [1, 1]
    assert errors(ended[which]) == ["error: RuntimeError: a fault"]
    assert "Traceback" in ended[which].err
    assert f"error: process {which}: RuntimeError: a fault" in errors(ended[1 - which])


@pytest.mark.slow
def test_a_hang_names_who_is_behind_and_where(podium: Commands, tmp_path):
    args = [FAULTY, *podium.train(tmp_path / "run", *LONG, "--config.watch.step=6")[1:]]
    pair = podium.pair(args, env=[{"FAULT": "hang:5:1"}] * 2)
    for ended in pair.wait(90):
        assert ended.code == 1
        (line,) = errors(ended)
        assert "takes longer than 6s" in line
        assert "process 1 is behind:" in line
        assert "faulty.py" in ended.err and "time.sleep(1000)" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "which"),
    [
        pytest.param(signal.SIGKILL, 0, marks=SLOW),
        (signal.SIGKILL, 1),
        pytest.param(signal.SIGSTOP, 0, marks=SLOW),
        pytest.param(signal.SIGSTOP, 1, marks=SLOW),
    ],
)
def test_a_process_that_is_no_more_heard_of_is_named(podium: Commands, tmp_path, number, which):
    workdir = tmp_path / "run"
    pair = podium.pair(podium.train(workdir, *LONG, "--config.watch.lost=8"))
    wait_for(lambda: in_the_loop(workdir), pair.processes[0])
    began = time.monotonic()
    pair.processes[which].send_signal(number)
    left = pair.wait_for(1 - which, 60)
    assert time.monotonic() - began < 30  # 8 s, and the 10 s in which an error is told
    assert left.code != 0
    # A coordinator that is killed takes XLA's word with it: its line, or ours, names it.
    assert f"process {which}" in left.err or "leader task" in left.err
    pair.kill()


@pytest.mark.slow
def test_one_that_never_comes(podium: Commands, tmp_path):
    args = [*podium.train(tmp_path / "run"), "--join_timeout=8"]
    pair = podium.pair(args, count=3)
    for ended in pair.wait(60):
        assert ended.code != 0
        assert "Some timed out task names:\n2" in ended.err


@SLOW
def test_a_first_one_that_never_comes(podium: Commands, tmp_path):
    args = [*podium.train(tmp_path / "run"), "--join_timeout=12"]
    alone = podium.pair(args, only=[1])
    (ended,) = alone.wait(60)
    assert ended.code != 0
    assert "waiting for process 0, which does not answer at 127.0.0.1:" in ended.err
