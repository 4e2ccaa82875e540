"""Tells damage of a folder in the cache by what was noted of its files when they were written.

What is noted is the size and the SHA-256 of each file: {name: {"size": ..., "sha256": ...}}. A
store has it in its manifest, other folders in a file of its own, `files.json`.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data import fingerprint
from errors import UserError

Noted = Mapping[str, Mapping[str, Any]]

_LIST = "files.json"
_AT_ONCE = 1 << 28  # files up to 256 MiB are checked in full whenever they are opened


def of(folder: Path, read: Callable[[Path], str]) -> Noted:
    """What there is to note of the files in `folder`.

    Args:
      read: the SHA-256 of a file.
    """
    return {
        path.name: {"size": path.stat().st_size, "sha256": read(path)}
        for path in sorted(folder.iterdir())
    }


def write(folder: Path) -> None:
    """Notes the files in `folder`, in a file beside them."""
    noted = of(folder, fingerprint.sha256)
    (folder / _LIST).write_text(json.dumps(noted, indent=1) + "\n")


def read(folder: Path) -> Noted:
    """What `write` has noted.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        return well_formed(json.loads((folder / _LIST).read_text()))
    except (OSError, ValueError) as error:
        raise damaged(folder / _LIST) from error


def well_formed(found: Any) -> Noted:
    """What was noted, from JSON.

    Raises:
      ValueError: it is something else.
    """
    try:
        return {
            name: {"size": int(entry["size"]), "sha256": str(entry["sha256"])}
            for name, entry in found.items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no list of files") from error


def check(folder: Path, noted: Noted) -> None:
    """Checks every file's size, and the SHA-256 of files up to 256 MiB.

    Raises:
      UserError: names the first file that is missing, truncated or damaged.
    """
    for name, entry in noted.items():
        file, size = folder / name, entry["size"]
        if not file.is_file():
            raise damaged(file, "missing")
        if file.stat().st_size != size:
            raise damaged(file, f"{file.stat().st_size} bytes long instead of {size}")
        if size <= _AT_ONCE:
            _check_content(file, entry)


def check_all(
    folder: Path, noted: Noted, progress: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Checks the SHA-256 of every file.

    Args:
      progress: called before each file with the files done and in all.

    Raises:
      UserError: names the first file that is missing or damaged.
    """
    for done, (name, entry) in enumerate(noted.items()):
        progress(done, len(noted))
        _check_content(folder / name, entry)


def damaged(file: Path, how: str = "missing or damaged") -> UserError:
    """Says so, and what to do."""
    return UserError(
        f"{file} is {how}: build it again by python -m data.prepare --rebuild, or delete the "
        f"directory {file.parent}"
    )


def _check_content(file: Path, entry: Mapping[str, Any]) -> None:
    try:
        found = fingerprint.sha256(file)
    except OSError as error:
        raise damaged(file, f"not readable ({error.strerror})") from error
    if found != entry["sha256"]:
        raise damaged(file, "not what was written")
