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
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from data import shared_cache
from errors import UserError


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

    Raises:
      UserError: what was fetched is damaged, or the bucket cannot be reached.
    """
    shared = _in_shared(target)
    if shared is not None and target.is_dir():
        shared_cache.publish(target, shared)  # of a build that was killed before it had done so
    elif shared is not None and shared_cache.complete(shared):
        with _published(target) as building:
            shared_cache.fetch(shared, building)
    return target.is_dir()


def remove(target: Path) -> None:
    """Removes `target`, so that it is built again; also what a killed build of it has done."""
    if shared := _in_shared(target):
        shared_cache.remove(shared)
    for folder in (target, building_folder(target)):
        shutil.rmtree(folder, ignore_errors=True)


def building_folder(target: Path) -> Path:
    """Where a build of `target` collects what a later build may go on from."""
    return target.with_name(f".{target.name}.building")


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yields an empty directory to fill; it becomes `target` when the block ends well.

    `target` exists only complete: the files are flushed to disk before the rename that names
    them, so a killed build leaves at most a directory with another name. If two processes build
    the same target the first rename wins and the second's work is thrown away: both built the
    same content. Where there is a shared cache, a copy goes there.

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
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"no space left at {where} ({error.strerror}): free some, or point PODIUM_CACHE "
            "elsewhere; the same command goes on from what is done"
        ) from error


def _in_shared(target: Path) -> epath.Path | None:
    """Where the shared cache has `target`, if there is one and `target` is of the cache."""
    location = shared_cache.location()
    if location is None or not target.is_relative_to(root()):
        return None
    return location / target.relative_to(root()).as_posix()


@contextlib.contextmanager
def _published(target: Path) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"cannot write the cache at {target.parent} ({error.strerror}): "
            "point PODIUM_CACHE at a writable directory"
        ) from error
    try:
        with full_disk_told(target.parent):
            yield building
        for directory, _, files in os.walk(building):
            for name in files:
                _flush(Path(directory) / name)
            _flush(Path(directory))
        building.chmod(0o755)  # mkdtemp makes it private; a shared cache is read by other users
        try:
            building.rename(target)
        except OSError:
            if not target.is_dir():
                raise
        _flush(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
