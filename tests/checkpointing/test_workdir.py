"""The directory of a run, and its lock."""

import os

import pytest

from checkpointing.workdir import lock, read_run, write_run
from errors import UserError


def test_one_process_at_a_time(tmp_path):
    workdir = tmp_path / "a" / "b"
    held = lock(workdir)
    with pytest.raises(UserError, match=f"is in use by process {os.getpid()}: "):
        lock(workdir)
    held.close()
    lock(workdir).close()


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot use --workdir="):
        lock(tmp_path / "file" / "run")


def test_run_is_written_whole(tmp_path):
    assert read_run(tmp_path) is None
    write_run(tmp_path, {"step": 0, "config": {"a": [1, "é"]}})
    assert read_run(tmp_path) == {"step": 0, "config": {"a": [1, "é"]}}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
