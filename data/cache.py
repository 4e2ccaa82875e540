"""Where derived data is kept, and how it appears there: whole or not at all.

Everything in the cache can be computed again; deleting any part of it costs time, nothing else.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from errors import UserError


def root() -> Path:
    """$PODIUM_CACHE, else $XDG_CACHE_HOME/podium, else ~/.cache/podium."""
    if named := os.environ.get("PODIUM_CACHE"):
        return Path(named).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser().absolute() / "podium"


def key(**parts: str | int) -> str:
    """A 32-digit hexadecimal name for the content that `parts` determine."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextlib.contextmanager
def publish(target: Path) -> Iterator[Path]:
    """Yields an empty directory to fill; it becomes `target` when the block ends well.

    `target` exists only complete: the files are flushed to disk before the rename that names
    them, so a killed build leaves at most a directory with another name. If two processes build
    the same target the first rename wins and the second's work is thrown away: both built the
    same content.

    Raises:
      UserError: the cache cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(
            f"cannot write the cache at {target.parent} ({error.strerror}): "
            "point PODIUM_CACHE at a writable directory"
        ) from error
    try:
        try:
            yield building
        except OSError as error:
            if error.errno not in (28, 122):  # ENOSPC, EDQUOT
                raise
            raise UserError(
                f"no space left at {target.parent}: free some, or point PODIUM_CACHE elsewhere"
            ) from error
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
