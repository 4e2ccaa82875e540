"""The directory of a run: one process trains in it at a time, and only its own run."""

import fcntl
import json
import os
from pathlib import Path
from typing import IO, Any

from errors import UserError

RUN = "run.json"
TOKENIZER = "tokenizer.json"
REPORT = "report.html"


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
