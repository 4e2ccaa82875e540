"""Names the content of data files without reading all of the large ones."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from data.documents import Progress
from errors import UserError

_WHOLE = 8 << 20  # bytes: what people write by hand is smaller, and read whole
_PIECE = 1 << 20  # bytes of it that are held at a time
_EDGE = 1 << 16  # bytes read at either end of a larger file
_BLOCKS, _BLOCK = 16, 1 << 14  # of it are read between: so many, of so many bytes
_TOLD = 100  # files between two words about them: less than a second's work


def of_files(files: Mapping[str, Path], progress: Progress) -> str:
    """A 32-digit hexadecimal hash of the name, size and content of every file.

    Of a large file, the content is its beginning, its end and some blocks between them. Neither
    where the files are nor when they were written matters: a copy elsewhere is the same data.

    Args:
      files: name -> path.

    Raises:
      UserError: a file cannot be read, or its name is no text.
    """
    content = hashlib.sha256()
    for done, (name, path) in enumerate(sorted(files.items())):
        if done and done % _TOLD == 0:
            progress("looking at the data: file", done, len(files))
        check_name(name, path)
        try:
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                content.update(f"{name}\0{size}\n".encode())
                for begin, length in _read_of(size):
                    file.seek(begin)
                    content.update(file.read(length))
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): repair it") from error
    return content.hexdigest()[:32]


def check_name(name: str, path: str | Path) -> None:
    """Refuses the name of a file that is not UTF-8: it could name no document.

    Args:
      path: of the file, for the message.

    Raises:
      UserError: it is not.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise UserError(
            f"the name of the file {shown} is not UTF-8: rename it, or leave it out of the data"
        ) from error


def of_listing(files: Iterable[tuple[str, int, str]]) -> str:
    """A 32-digit hexadecimal hash of what a storage tells of files, without reading them.

    Args:
      files: name, size, and what else is told of the content, in a fixed order.
    """
    content = hashlib.sha256()
    for name, size, mark in files:
        content.update(f"{name}\0{size}\0{mark}\n".encode())
    return content.hexdigest()[:32]


def _read_of(size: int) -> list[tuple[int, int]]:
    """Where a file of so many bytes is read: where each piece begins, and how much at most."""
    if size <= _WHOLE:
        return [(begin, _PIECE) for begin in range(0, size, _PIECE)]
    between = [(size * i // (_BLOCKS + 1), _BLOCK) for i in range(1, _BLOCKS + 1)]
    return [(0, _EDGE), *between, (size - _EDGE, _EDGE)]


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
