"""A run in a bucket is the run that a local directory holds."""

import json
import signal
from pathlib import Path

import gcsfs
import pytest
from etils import epath

from tests.bucket.conftest import BUCKET
from tests.running import ROOT, Commands, assert_same_run, wait_for

FAULTY = str(ROOT / "tests" / "commands" / "faulty.py")
LONG = ("--config.train.steps=100000", "--config.checkpoint.every=50")


def lines(folder: epath.Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def steps(folder: epath.Path) -> list[int]:
    """Of the checkpoints that were published."""
    found = (folder / "checkpoints").glob("*/commit_success.txt")
    return sorted(int(path.parent.name) for path in found)


def fetched(folder: epath.Path, target: Path) -> Path:
    """A copy of the run on this machine."""
    files = gcsfs.GCSFileSystem(skip_instance_cache=True)
    files.get(f"{folder}/", f"{target}/", recursive=True)
    return target


@pytest.fixture(scope="module")
def whole(podium: Commands, server, tmp_path_factory) -> str:
    """A finished run in the bucket."""
    from tests.bucket.conftest import environment

    workdir = f"gs://{BUCKET}/whole"
    done = podium.with_env(environment(server.url))(*podium.train(workdir))
    assert done.returncode == 0, done.stderr
    assert f"report: {workdir}/report.html" in done.stdout
    return workdir


def test_a_run_leaves_what_a_local_one_leaves(whole, here, finished, tmp_path):
    copy = fetched(epath.Path(whole), tmp_path)
    assert_same_run(copy, finished)
    names = {path.name for path in copy.iterdir()}
    local = {path.name for path in finished.iterdir()} - {".lock", "run.json.partial"}
    assert names == local  # and no lease: it was given back
    assert "</html>" in (copy / "report.html").read_text()


def test_evaluation_and_text_from_a_bucket(cloud: Commands, whole):
    result = cloud("eval.py", f"--workdir={whole}")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["step"] == 12
    text = cloud("generate.py", f"--workdir={whole}", "--prompt=rose", "--max_tokens=5")
    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("rose")


def test_a_finished_run_stays_as_it_is(cloud: Commands, whole, here):
    before = (epath.Path(whole) / "metrics.jsonl").read_text()
    again = cloud(*cloud.train(whole))
    assert again.returncode == 0, again.stderr
    assert "all 12 steps are done" in again.stderr
    assert (epath.Path(whole) / "metrics.jsonl").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("when", ["during a save", "any moment"])
def test_killed_and_resumed_is_the_uninterrupted_run(
    cloud: Commands, folder, finished, tmp_path, when
):
    args = cloud.train(folder)
    if when == "during a save":
        process = cloud.start(FAULTY, *args[1:], env={"FAULT": "kill:6:0"})
    else:
        process = cloud.start(*args)
        wait_for(lambda: lines(folder) > 2, process)
        process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "killed too late"
    if when == "during a save":
        assert steps(folder) == [3]  # that of step 6 was begun, and not published
    again = cloud(*cloud.train(folder))
    assert again.returncode == 0, again.stderr
    assert "was last used by " in again.stderr
    assert_same_run(fetched(folder, tmp_path), finished)
    everything = {path.parent.name for path in (folder / "checkpoints").glob("*/*")}
    assert everything == {str(step) for step in steps(folder)}  # nothing half-written is left


@pytest.mark.slow
def test_a_signal_saves_and_gives_the_lease_back(cloud: Commands, folder):
    process = cloud.start(*cloud.train(folder, *LONG))
    wait_for(lambda: lines(folder) > 2, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "stopped by SIGTERM; step" in err
    assert not (folder / ".lease").exists()
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == max(
        steps(folder)
    )


@pytest.mark.slow
def test_a_second_run_is_refused(cloud: Commands, folder):
    first = cloud.start(*cloud.train(folder, *LONG))
    wait_for(lambda: lines(folder) > 2, first)
    second = cloud(*cloud.train(folder, *LONG))
    first.kill()
    assert second.returncode == 2
    assert "is in use by " in second.stderr.splitlines()[-1]


@pytest.mark.slow
def test_two_processes(cloud: Commands, folder, finished, tmp_path):
    args = cloud.train(folder, "--config.mesh.data=1", "--config.mesh.fsdp=2")
    pair = cloud.pair(args)
    wait_for(lambda: lines(folder) > 2, pair.processes[0])
    pair.kill()
    assert len(steps(folder)) < 4, "killed too late"
    for ended in cloud.pair(args).wait(240):
        assert ended.code == 0, ended.err
    local = cloud.pair(cloud.train(tmp_path / "local", *args[-2:]))
    for ended in local.wait(240):
        assert ended.code == 0, ended.err
    assert_same_run(fetched(folder, tmp_path / "copy"), tmp_path / "local")


@pytest.mark.parametrize(
    ("workdir", "says"),
    [
        ("gs://no-such-bucket/run", "gs://no-such-bucket/run: not found ("),
        ("s3://bucket/run", "a run cannot be in s3:// storage: Orbax cannot save there"),
    ],
)
def test_places_where_no_run_can_be(cloud: Commands, workdir, says):
    done = cloud(*cloud.train(workdir))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert line.startswith("error: ") and says in line
    assert "step" not in done.stderr
