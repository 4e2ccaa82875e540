"""The directory of a run: one run trains in it at a time, and all that it leaves is there.

A directory is local, on a POSIX file system that all processes share, or a folder of a Google
Cloud Storage bucket. What is appended to (metrics) cannot be in a bucket: it is written to a local
folder and published whole.
"""

import fcntl
import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from etils import epath

from checkpointing.lease import Lease
from cluster.coordination import KeyValues
from data import cache
from errors import UserError

RUN = "run.json"
TOKENIZER = "tokenizer.json"
REPORT = "report.html"
PUBLISHED = "hf"
"""Folder of what was published with a converted model: config.json, files of its tokenizer."""
CONVERTING = ".converting"
"""Is there while a conversion writes the rest, and after one was killed."""
_LEASE = ".lease"
_LOCK = ".lock"
_PROOF = ".shared"
_STORAGE = ("aiohttp", "asyncio", "fsspec", "gcsfs", "google", "requests")
_SEEN_S = 15.0  # network file systems show a new file a little later elsewhere


class Hold(Protocol):
    """The right to train in a workdir."""

    def check(self) -> None:
        """Call before every save.

        Raises:
          UserError: another run has taken it.
        """

    def release(self) -> None:
        """Gives it back."""


class Workdir:
    """A run's directory.

    Attributes:
      path: where all of it is, in the end.
      local: where files are written and appended to: `path` itself, or, for a bucket, a folder of
        this machine; `publish` copies from there.
    """

    def __init__(self, text: str, name: str = "--workdir") -> None:
        """Raises UserError if `text` names no place where a run can be; `name` is what gave it."""
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
        if scheme and scheme[1] == "gs" and not text.startswith("gs://"):
            raise UserError(f"{name}={text}: give gs://BUCKET/FOLDER, with two slashes")
        if scheme and scheme[1] != "gs":
            reason = ": Orbax cannot save there" if scheme[1] == "s3" else ""
            raise UserError(
                f"{name}={text}: a run cannot be in {scheme[1]}:// storage{reason}; give a "
                "local directory or gs://BUCKET/FOLDER"
            )
        self._remote = bool(scheme)
        if self._remote:
            if not re.fullmatch(r"gs://[^/]+/.+", text):
                raise UserError(f"{name}={text}: give gs://BUCKET/FOLDER")
            if importlib.util.find_spec("gcsfs") is None:
                raise UserError(
                    f"{name}={text}: buckets need the package gcsfs: `make setup GCS=1`"
                )
            self.path = epath.Path(text.rstrip("/"))
            self.local = cache.root() / "runs" / cache.key(workdir=str(self.path))
        else:
            self.local = Path(text)
            self.path = epath.Path(self.local.absolute())

    def __str__(self) -> str:
        return str(self.path if self._remote else self.local)

    def hold(self) -> Hold:
        """Makes the directory, and holds it against other runs until `release`, or a death.

        Raises:
          UserError: another run trains in it, or it cannot be made.
        """
        if not self._remote:
            return _FileLock(self.local)
        with self.reached():
            lease = Lease(self.path / _LEASE, self.reached)
        shutil.rmtree(self.local, ignore_errors=True)  # the bucket has what counts
        self.local.mkdir(parents=True)
        return lease

    def fetch(self, *names: str) -> None:
        """Brings files, or folders of files, from the bucket to `local`."""
        if self._remote:
            with self.reached():
                for name in names:
                    for file in _files(self.path / name):
                        _copy(file, epath.Path(self.local) / file.relative_to(self.path))

    def publish(self, *names: str) -> None:
        """Copies files, or folders of files, from `local` to the bucket, each whole or not at all.

        Raises:
          UserError: the bucket cannot be written.
        """
        if self._remote:
            local = epath.Path(self.local)
            with self.reached():
                for name in names:
                    for file in _files(local / name):
                        _copy(file, self.path / file.relative_to(local))

    def exists(self) -> bool:
        """Whether there is anything."""
        with self.reached():
            return self.path.exists()

    def names(self) -> list[str]:
        """What is there, but for what holds it against other runs."""
        with self.reached():
            found = self.path.iterdir() if self.path.exists() else ()
            return sorted(one.name for one in found if one.name not in (_LOCK, _LEASE, _PROOF))

    def clear(self) -> None:
        """Removes all that `names` lists: only after a conversion that was killed."""
        with self.reached():
            # The mark goes last: killed at this, it is begun again.
            for name in sorted(self.names(), key=lambda name: name == CONVERTING):
                path = self.path / name
                path.rmtree() if path.is_dir() else path.unlink()

    def read_run(self) -> dict[str, Any] | None:
        """What `write_run` wrote; None in a fresh directory.

        Raises:
          UserError: the file is damaged.
        """
        path = self.path / RUN
        try:
            with self.reached():
                return json.loads(path.read_text()) if path.exists() else None
        except ValueError:
            raise UserError(f"{path} is damaged: choose another --workdir") from None

    def write_run(self, run: dict[str, Any]) -> None:
        """Notes config and data of the run, for people, and for a restart before a checkpoint."""
        partial = self.local / f"{RUN}.partial"
        partial.write_text(json.dumps(run, indent=1) + "\n")
        os.replace(partial, self.local / RUN)
        self.publish(RUN)

    def proof(self, others: KeyValues) -> str:
        """Proves that all processes see one directory, and not each its own of this name.

        Process 0 writes a word that only it knows, and the others read it there.

        Returns:
          what this process found, which is equal on all processes if they share the directory.
        """
        if others.count == 1:
            return ""
        path = self.path / _PROOF
        if others.index == 0:
            word = secrets.token_hex(4)
            path.write_text(word)
            others.put("workdir", word)
            return f"the one with mark {word}"
        word = others.wait("workdir", 300) or ""
        deadline = time.monotonic() + _SEEN_S
        while True:
            found = path.read_text() if path.exists() else ""
            if found == word or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        if not found:
            return f"another one ({self} there has no mark)"
        return f"the one with mark {found}"

    def reached(self) -> "_Reached":
        """A context that makes one line of what a bucket raises when it cannot be reached."""
        return _Reached(str(self))


class _Reached:
    """Turns the errors of a bucket into a line. gcsfs has by then tried for half a minute."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or not self._where.startswith("gs://"):
            return
        bucket = self._where.removeprefix("gs://").partition("/")[0]
        text = str(error).strip()
        line = (text or type(error).__name__).splitlines()[0][:300]
        if isinstance(error, FileNotFoundError) and bucket in text:
            raise UserError(
                f"{self._where}: not found ({line}): is there such a bucket?"
            ) from error
        # gcsfs raises its own errors and those of what it is made of; TensorStore names its URL.
        library = type(error).__module__.partition(".")[0]
        if library in _STORAGE or isinstance(error, OSError) or f"/b/{bucket}/" in text:
            raise UserError(
                f"{self._where} cannot be reached ({line}): nothing that was saved is lost; the "
                "same command goes on from there"
            ) from error


class _FileLock:
    """A lock that the system takes back when the process ends, however it does."""

    def __init__(self, workdir: Path) -> None:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            self._file = (workdir / _LOCK).open("a+")
        except OSError as error:
            raise UserError(f"cannot use --workdir={workdir}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip()
            self._file.close()
            raise UserError(
                f"{workdir} is in use by process {owner}: wait for it, stop it, or choose another "
                "--workdir"
            ) from None
        except OSError as error:
            print(
                f"note: the file system of {workdir} has no locks ({error.strerror}): nothing "
                "keeps a second run out of it",
                file=sys.stderr,
            )
        self._file.truncate(0)
        self._file.write(f"{os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def check(self) -> None:
        """The system sees to it."""

    def release(self) -> None:
        self._file.close()


def _files(path: epath.Path) -> Iterator[epath.Path]:
    """The file at `path`, or all files below it; none if there is nothing."""
    if path.is_dir():
        for child in path.iterdir():
            yield from _files(child)
    elif path.exists():
        yield path


def _copy(source: epath.Path, target: epath.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.copy(target, overwrite=True)
