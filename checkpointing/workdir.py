"""The directory of a run: one process trains in it at a time, and only its own run."""

import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import IO, Any

from cluster.coordination import KeyValues
from errors import UserError

RUN = "run.json"
TOKENIZER = "tokenizer.json"
REPORT = "report.html"
_PROOF = ".shared"
_SEEN_S = 15.0  # network file systems show a new file a little later elsewhere


def lock(workdir: Path) -> IO[str]:
    """Makes the directory and locks it until the process ends (or the file is closed).

    Raises:
      UserError: another process trains in it, or it cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot use --workdir={workdir}: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise UserError(
            f"{workdir} is in use by process {file.read().strip()}: wait for it, stop it, or "
            "choose another --workdir"
        ) from None
    except OSError:  # a file system without locks
        return file
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def read_run(workdir: Path) -> dict[str, Any] | None:
    """What `write_run` wrote; None in a fresh directory.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / RUN
    try:
        return json.loads(path.read_text()) if path.exists() else None
    except ValueError:
        raise UserError(f"{path} is damaged: choose another --workdir") from None


def write_run(workdir: Path, run: dict[str, Any]) -> None:
    """Notes config and data of the run, for people, and for a restart before a checkpoint."""
    partial = workdir / f"{RUN}.partial"
    partial.write_text(json.dumps(run, indent=1) + "\n")
    os.replace(partial, workdir / RUN)


def same_directory(others: KeyValues, workdir: Path) -> str:
    """Proves that all processes see one directory, and not each its own of this name.

    Process 0 writes a word that only it knows, and the others read it there.

    Returns:
      what this process found, which is equal on all processes if they share the directory.
    """
    path = workdir / _PROOF
    if others.count == 1:
        return ""
    if others.index == 0:
        word = secrets.token_hex(4)
        path.write_text(word)
        others.put("workdir", word)
        return f"the one with mark {word}"
    word = others.wait("workdir", 300) or ""
    deadline = time.monotonic() + _SEEN_S
    while True:
        found = path.read_text() if path.is_file() else ""
        if found == word or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if not found:
        return f"another one ({workdir.absolute()} there has no mark)"
    return f"the one with mark {found}"
