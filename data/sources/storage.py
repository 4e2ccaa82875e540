"""Files by pattern, on this machine or where fsspec reaches: gs://, s3://."""

import contextlib
import glob
import io
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from data import fingerprint, packages
from data.documents import line_of
from data.sources import compression
from errors import UserError

_BUFFER = 1 << 18
_COPIED = 1 << 20  # bytes copied at a time
# What a storage tells of a file's content without reading it, the first of them that is there.
_MARKS = (
    *("md5Hash", "md5", "content_md5", "crc32c", "ETag", "etag", "generation"),
    *("mtime", "updated", "LastModified", "last_modified", "created"),
)


class File(NamedTuple):
    """A file that was found.

    Attributes:
      name: below the folder where the pattern's wildcards begin.
      path: where it is: a local path, or a URL.
      size: in bytes.
      mark: what its storage tells of its content; "" of a local file.
    """

    name: str
    path: str
    size: int
    mark: str = ""

    @property
    def is_remote(self) -> bool:
        return "://" in self.path

    @property
    def failures(self) -> type[Exception]:
        """What reading it may raise: a bucket's library raises its own errors."""
        return Exception if self.is_remote else OSError


def match(pattern: str, where: str) -> list[File]:
    """The files that `pattern` matches, in ascending order of name.

    Args:
      where: the source, for messages.

    Raises:
      UserError: there are none, or they cannot be listed.
    """
    found = _remote(pattern, where) if "://" in pattern else _local(pattern, where)
    if not found:
        raise UserError(f"{where} matches no file: correct the path or the pattern")
    return sorted(found)


def unreadable(file: File, error: BaseException, after: str = "") -> UserError:
    """The line for a file that turns out to be damaged.

    Args:
      after: the last document of it that was read.
    """
    place = f" after document {after!r}" if after else ""
    return UserError(
        f"cannot read {file.path}{place} ({line_of(error)}): repair it, or leave it out of the "
        "pattern"
    )


@contextlib.contextmanager
def opened(file: File) -> Iterator[BinaryIO]:
    """The file, to read and seek.

    Raises:
      UserError: it is not as it was when it was found.
      file.failures: it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        if file.is_remote:
            fsspec = packages.needed("fsspec", "fsspec", f"reading {file.path}")
            files, path = fsspec.core.url_to_fs(file.path)
            remote = stack.enter_context(files.open(path, "rb"))
            raw = cast(BinaryIO, io.BufferedReader(remote, _BUFFER))
        else:
            raw = stack.enter_context(open(file.path, "rb", buffering=_BUFFER))
        size = raw.seek(0, os.SEEK_END)
        if size != file.size:
            raise UserError(
                f"{file.path} has changed since it was found (it had {file.size:,} bytes, and has "
                f"{size:,}): start again when nothing writes it"
            )
        raw.seek(0)
        yield raw


@contextlib.contextmanager
def local_copy(file: File) -> Iterator[str]:
    """The path of what the file holds, for libraries that read paths alone.

    What is remote or compressed is copied beside the other temporary files meanwhile.

    Raises:
      UserError: the copy cannot be written, or the file is not as it was when it was found.
      file.failures: the file cannot be read.
    """
    if not file.is_remote and not compression.ending_of(file.name):
        with opened(file):  # checks its size
            pass
        yield file.path
        return
    with contextlib.ExitStack() as stack:
        with _writing_told(file):
            # Without a buffer: what could not be written would be tried again as it closes.
            suffix = Path(file.name).name
            copy = stack.enter_context(
                tempfile.NamedTemporaryFile(prefix="podium.", suffix=suffix, buffering=0)
            )
        with opened(file) as raw:
            content = compression.decompressed(raw, file.name)
            while piece := content.read(_COPIED):
                left = memoryview(piece)
                with _writing_told(file):
                    while left:
                        left = left[copy.write(left) :]
        yield copy.name


@contextlib.contextmanager
def _writing_told(file: File) -> Iterator[None]:
    """Tells what is wrong with the temporary copy from what is wrong with the file."""
    try:
        yield
    except OSError as error:
        where = tempfile.tempdir or "any temporary folder"  # None where there is no usable one
        raise UserError(
            f"cannot write a temporary copy of {file.path} to {where} ({error.strerror}): free "
            "space there, or point TMPDIR at a folder with room"
        ) from error


def _local(pattern: str, where: str) -> list[File]:
    path = Path(pattern).expanduser().absolute()
    if path.is_dir():
        raise UserError(
            f"{where} is a folder: give a pattern of files, such as 'files:{pattern}/**/*.txt'"
        )
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parent.parts))
    found = []
    for place in set(glob.iglob(str(path), recursive=True)):  # "**/**" gives a file several times
        if os.path.isfile(place):
            name = Path(place).relative_to(root).as_posix()
            fingerprint.check_name(name, place)
            found.append(File(name, place, os.path.getsize(place)))
    return found


def _remote(pattern: str, where: str) -> list[File]:
    fsspec = packages.needed("fsspec", "fsspec", where)
    try:
        files, path = fsspec.core.url_to_fs(pattern)
    except ImportError as error:  # it says which package to install
        how = "`make setup GCS=1`" if pattern.startswith(("gs://", "gcs://")) else "use pip"
        raise UserError(
            f"{where} needs a package that is not installed ({line_of(error)}): {how}"
        ) from error
    except ValueError as error:
        raise UserError(f"{where}: {line_of(error)}: correct the URL") from error
    try:
        files.invalidate_cache()
        found = files.glob(path, detail=True)
    except Exception as error:  # every storage has its own
        raise UserError(
            f"cannot list {where} ({line_of(error)}): correct the URL, or the right to read it"
        ) from error
    parts = path.split("/")[:-1]
    root = "/".join(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return [
        File(
            found_path.removeprefix(root).lstrip("/"),
            files.unstrip_protocol(found_path),
            int(info["size"]),
            _mark(info),
        )
        for found_path, info in found.items()
        if info["type"] == "file"
    ]


def _mark(info: Mapping[str, Any]) -> str:
    return next((f"{key}={info[key]}" for key in _MARKS if info.get(key)), "")
