"""Where derived data is kept, and how it appears there: whole or not at all.

Everything in the cache can be computed again; deleting any part of it costs time, nothing else.
It may be shared through a bucket (data/shared_cache.py): then each machine has its own copy too.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from data import partial, shared_cache
from errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def root() -> Path:
    """$PODIUM_CACHE if that is local, else $XDG_CACHE_HOME/podium, else ~/.cache/podium."""
    named = os.environ.get("PODIUM_CACHE")
    if named and not shared_cache.location():
        return Path(named).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser().absolute() / "podium"


def key(**parts: str | int) -> str:
    """A 32-digit hexadecimal name for the content that `parts` determine."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def has(target: Path) -> bool:
    """Whether `target` is there; it is fetched from the shared cache if it is in that alone.

    Where it is there, what killed builds of it have left is removed.

    Raises:
      UserError: what was fetched is damaged, or the bucket cannot be reached.
    """
    shared = _in_shared(target)
    if shared is not None and is_there(target):
        shared_cache.publish(target, shared)  # of a build that was killed before it had done so
    elif shared is not None and shared_cache.complete(shared):
        with _published(target) as building:
            shared_cache.fetch(shared, building)
    if not is_there(target):
        return False
    _remove_leftovers(target)
    return True


def is_there(target: Path) -> bool:
    """Whether this machine has `target`, as far as it may look."""
    return os.path.isdir(target)  # Path.is_dir raises where it may not


def remove(target: Path) -> None:
    """Removes `target`, so that it is built again; also what killed builds of it have left."""
    if shared := _in_shared(target):
        shared_cache.remove(shared)
    shutil.rmtree(target, ignore_errors=True)
    _remove_leftovers(target)


def building_folder(target: Path) -> Path:
    """Where a build of `target` collects what a later build may go on from."""
    return target.with_name(f".{target.name}.building")


def make_folder(path: Path) -> None:
    """Makes a folder of the cache, unless it is there.

    Raises:
      UserError: it cannot be made, or not be written to.
    """
    with full_disk_told(path), _unwritable_told(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yields an empty directory to fill; it becomes `target` when the block ends well.

    `target` exists only complete: the files are flushed to disk before the rename that names
    them, so a killed build leaves at most a directory with another name, which the next one
    removes. If two processes build the same target the first rename wins and the second's work is
    thrown away: both built the same content. Where there is a shared cache, a copy goes there.

    Raises:
      UserError: the cache cannot be written.
    """
    with _published(target) as building:
        yield building
    if shared := _in_shared(target):
        shared_cache.publish(target, shared)


@contextlib.contextmanager
def full_disk_told(where: Path) -> Iterator[None]:
    """Makes one line of a disk that is full.

    Raises:
      UserError: it is.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise UserError(
            f"no space left at {where} ({error.strerror}): free some, or point PODIUM_CACHE "
            "elsewhere; the same command goes on from what is done"
        ) from error


@contextlib.contextmanager
def _unwritable_told(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise UserError(
            f"cannot write the cache at {where} ({error.strerror}): "
            "point PODIUM_CACHE at a writable directory"
        ) from error


def _remove_leftovers(target: Path) -> None:
    """Removes what killed builds of `target` have left.

    A build that goes on loses its chunks too: where `target` is there it takes that for its end.
    """
    partial.sweep(target.parent, target.name)
    shutil.rmtree(building_folder(target), ignore_errors=True)


def _in_shared(target: Path) -> epath.Path | None:
    """Where the shared cache has `target`, if there is one and `target` is of the cache."""
    location = shared_cache.location()
    if location is None or not target.is_relative_to(root()):
        return None
    return location / target.relative_to(root()).as_posix()


@contextlib.contextmanager
def _published(target: Path) -> Iterator[Path]:
    make_folder(target.parent)
    partial.sweep(target.parent, target.name)  # first: it may be what fills the disk
    with contextlib.ExitStack() as stack:
        with full_disk_told(target.parent), _unwritable_told(target.parent):
            building = stack.enter_context(partial.folder(target.parent, target.name))
        with full_disk_told(target.parent):
            yield building
        for directory, _, files in os.walk(building):
            for name in files:
                _flush(Path(directory) / name)
            _flush(Path(directory))
        try:
            building.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
