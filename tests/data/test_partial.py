"""Of folders that are being filled, only those that nobody fills any more are swept."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

import pytest

from data import partial


def killed(parent: Path) -> Path:
    """A folder whose process was killed at it."""
    folder, lock = partial._made(parent, "name")
    (folder / "content").mkdir()
    (folder / "content" / "file").write_text("x")
    os.close(lock)
    return folder


def test_it_is_empty_and_goes_in_the_end(tmp_path: Path) -> None:
    with partial.folder(tmp_path, "name") as one, partial.folder(tmp_path, "name") as two:
        assert list(one.iterdir()) == [] and one != two
        (two / "file").write_text("x")
        two.rename(tmp_path / "moved")
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_only_those_of_killed_processes_are_swept(tmp_path: Path) -> None:
    with partial.folder(tmp_path, "name") as held:
        (held / "file").write_text("x")
        left = killed(tmp_path)
        partial.sweep(tmp_path, "nam*")
        assert left.exists()
        partial.sweep(tmp_path, "name")
        assert not left.exists()
        assert (held / "file").read_text() == "x"
    partial.sweep(tmp_path / "nowhere", "name")


def test_those_of_another_host_are_swept_after_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr(socket, "gethostname", lambda: "another")
        left = killed(tmp_path)
    long_ago = time.time() - 2 * 24 * 3600
    for path in (left / "lock", left / "content", left):
        os.utime(path, (long_ago, long_ago))
    partial.sweep(tmp_path, "name")
    assert left.exists()  # a file in it was written just now
    os.utime(left / "content" / "file", (long_ago, long_ago))
    partial.sweep(tmp_path, "name")
    assert not left.exists()


def test_where_there_are_no_locks_nothing_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with partial.folder(tmp_path, "name") as held:
        left = killed(tmp_path)
        partial.sweep(tmp_path, "name")
        assert held.exists() and left.exists()
    assert list(tmp_path.iterdir()) == [left]


def test_a_folder_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sweep_first(lock: int, how: int) -> None:
        monkeypatch.undo()
        (only,) = tmp_path.iterdir()
        partial._remove(only)
        fcntl.flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    with partial.folder(tmp_path, "name") as held:
        assert held.exists()
