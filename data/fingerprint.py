"""Names the content of data files without reading all of it."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from data.documents import Progress
from errors import UserError

_EDGE = 1 << 16  # bytes read at either end of a file to tell it from another
_TOLD = 1000  # files between two words about them: a few hundred take no time


def of_files(files: Mapping[str, Path], progress: Progress) -> str:
    """A 32-digit hexadecimal hash of the name, size, beginning and end of every file.

    Neither where the files are nor when they were written matters.

    Args:
      files: name -> path.

    Raises:
      UserError: a file cannot be read.
    """
    content = hashlib.sha256()
    for done, (name, path) in enumerate(sorted(files.items())):
        if done and done % _TOLD == 0:
            progress("looking at the data: file", done, len(files))
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                content.update(f"{name}\0{size}\n".encode())
                file.seek(0)
                content.update(file.read(_EDGE))
                if size > _EDGE:
                    file.seek(max(_EDGE, size - _EDGE))
                    content.update(file.read())
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): repair it") from error
    return content.hexdigest()[:32]


def of_listing(files: Iterable[tuple[str, int, str]]) -> str:
    """A 32-digit hexadecimal hash of what a storage tells of files, without reading them.

    Args:
      files: name, size, and what else is told of the content, in a fixed order.
    """
    content = hashlib.sha256()
    for name, size, mark in files:
        content.update(f"{name}\0{size}\0{mark}\n".encode())
    return content.hexdigest()[:32]


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
