"""Folders that are being filled, and those whose process was killed at it.

A process that fills one holds a lock (flock) on a file in it. The system lets go of the lock when
the process ends, in whatever way: a folder whose lock can be taken is nobody's any more. Some file
systems know no such locks: there nothing is swept. On others a lock is known to its own host alone:
so what another host has made is swept only when it has not been touched for a day.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".partial"
_LOCK = "lock"  # holds the name of the host
_CONTENT = "content"  # a folder of its own, so that the lock is not among what is published
_UNTOUCHED_S = 24 * 3600.0


@contextlib.contextmanager
def folder(parent: Path, name: str) -> Iterator[Path]:
    """Yields an empty folder, to be filled and moved; what has not been moved goes in the end.

    Args:
      parent: where it is, so that moving it there is a rename.
      name: of what it is to become.

    Raises:
      OSError: it cannot be made.
    """
    made, lock = _made(parent, name)
    try:
        content = made / _CONTENT
        content.mkdir()
        yield content
    finally:
        _remove(made)
        os.close(lock)


def sweep(parent: Path, name: str) -> None:
    """Removes the folders for `name` whose processes were killed."""
    for left in parent.glob(f".*{_SUFFIX}"):
        if left.name.removesuffix(_SUFFIX).rpartition(".")[0] != f".{name}":
            continue
        try:
            lock = os.open(left / _LOCK, os.O_RDWR)
        except OSError:  # gone meanwhile, or another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _of_this_host(lock) or _untouched(left):
                _remove(left)
        except OSError:  # somebody is at it, or there are no locks here
            pass
        finally:
            os.close(lock)


def _made(parent: Path, name: str) -> tuple[Path, int]:
    """A new folder, and the open file of its lock, which is held."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_SUFFIX, dir=parent))
        lock = os.open(made / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        with contextlib.suppress(OSError):  # no locks here
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (made / _LOCK).exists():
            os.write(lock, socket.gethostname().encode())
            return made, lock
        os.close(lock)  # swept before it was locked, by a host whose clock is a day ahead


def _of_this_host(lock: int) -> bool:
    return os.pread(lock, 1 << 10, 0) == socket.gethostname().encode()


def _untouched(left: Path) -> bool:
    newest = max(path.lstat().st_mtime for path in (left, *left.rglob("*")))
    return newest < time.time() - _UNTOUCHED_S


def _remove(made: Path) -> None:
    shutil.rmtree(made / _CONTENT, ignore_errors=True)  # first: without its lock it would stay
    shutil.rmtree(made, ignore_errors=True)
