"""The directory of a run, and its lock."""

import os

import pytest

from checkpointing.workdir import Workdir
from errors import UserError


def test_one_process_at_a_time(tmp_path):
    workdir = Workdir(str(tmp_path / "a" / "b"))
    held = workdir.hold()
    with pytest.raises(UserError, match=f"is in use by process {os.getpid()} on .*: wait for it"):
        workdir.hold()
    held.check()
    held.release()
    workdir.hold().release()


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use --workdir="):
        Workdir(str(tmp_path / "file" / "run")).hold()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def flock(file, operation) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("checkpointing.workdir.fcntl.flock", flock)
    Workdir(str(tmp_path)).hold().release()
    assert "has no locks (Operation not supported): nothing keeps a second run out" in (
        capsys.readouterr().err
    )


def test_run_is_written_whole(tmp_path):
    workdir = Workdir(str(tmp_path))
    assert workdir.read_run() is None
    workdir.write_run({"step": 0, "config": {"a": [1, "é"]}})
    assert workdir.read_run() == {"step": 0, "config": {"a": [1, "é"]}}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"step": ')
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        Workdir(str(tmp_path)).read_run()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("s3://bucket/run", "a run cannot be in s3:// storage: Orbax cannot save there; give"),
        ("hdfs://host/run", "a run cannot be in hdfs:// storage; give a local directory or gs://"),
        ("gs:/bucket/run", "give gs://BUCKET/FOLDER, with two slashes"),
        ("gs://bucket", "give gs://BUCKET/FOLDER"),
        ("gs:///run", "give gs://BUCKET/FOLDER"),
    ],
)
def test_places_where_no_run_can_be(text, says):
    with pytest.raises(UserError, match=says):
        Workdir(text)


def test_a_bucket_needs_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="buckets need the package gcsfs: `make setup GCS=1`"):
        Workdir("gs://bucket/run")


def test_a_local_directory_publishes_nothing(tmp_path):
    workdir = Workdir(str(tmp_path))
    (tmp_path / "a").write_text("1")
    workdir.publish("a")
    workdir.fetch("a", "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_there_and_that_it_can_go(tmp_path):
    workdir = Workdir(str(tmp_path / "run"))
    assert workdir.names() == []
    lock = workdir.hold()
    (workdir.local / "checkpoints" / "0").mkdir(parents=True)
    (workdir.local / "run.json").write_text("{}")
    assert workdir.names() == ["checkpoints", "run.json"]
    workdir.clear()
    assert workdir.names() == []
    assert (workdir.local / ".lock").exists()
    lock.release()


def test_what_names_a_workdir_is_said():
    with pytest.raises(UserError, match=r"^config.train.start_from=s3://b/x: a run cannot"):
        Workdir("s3://b/x", "config.train.start_from")
