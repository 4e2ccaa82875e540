"""A cache in a bucket, from which machines fetch what another has built already.

A folder of it is complete once it has a list of its files, with their SHA-256, which is written
last. Folders are named by what determined their content, so that none is ever written anew.
"""

import importlib.util
import json
import os
from pathlib import Path

from etils import epath

from data import fingerprint
from errors import UserError

_LIST = "complete.json"


def location() -> epath.Path | None:
    """$PODIUM_CACHE, if that is in a bucket.

    Raises:
      UserError: it is in storage that is not read, or its package is not there.
    """
    named = os.environ.get("PODIUM_CACHE", "")
    if "://" not in named:
        return None
    if not named.startswith("gs://"):
        raise UserError(f"PODIUM_CACHE={named}: give a local directory or gs://BUCKET/FOLDER")
    if importlib.util.find_spec("gcsfs") is None:
        raise UserError(f"PODIUM_CACHE={named}: buckets need the package gcsfs: `make setup GCS=1`")
    return epath.Path(named.rstrip("/"))


def complete(shared: epath.Path) -> bool:
    """Whether a folder has been published."""
    try:
        return (shared / _LIST).exists()
    except Exception as error:  # whatever the storage raises
        raise _unreached(shared, error) from error


def publish(built: Path, shared: epath.Path) -> None:
    """Copies a folder there, unless it is there already.

    Raises:
      UserError: the bucket cannot be written.
    """
    if complete(shared):
        return
    files = sorted(path for path in built.rglob("*") if path.is_file())
    sums = {path.relative_to(built).as_posix(): fingerprint.sha256(path) for path in files}
    try:
        for name in sums:
            (shared / name).parent.mkdir(parents=True, exist_ok=True)
            epath.Path(built / name).copy(shared / name, overwrite=True)
        (shared / _LIST).write_text(json.dumps(sums, indent=1) + "\n")
    except Exception as error:
        raise _unreached(shared, error) from error


def remove(shared: epath.Path) -> None:
    """Removes a folder there, if there is one.

    Raises:
      UserError: the bucket cannot be written.
    """
    try:
        if (shared / _LIST).exists():
            (shared / _LIST).unlink()  # first: without it the folder counts as absent
            shared.rmtree()
    except Exception as error:
        raise _unreached(shared, error) from error


def fetch(shared: epath.Path, target: Path) -> None:
    """Copies a folder from there into `target`, and checks it.

    Raises:
      UserError: a file is damaged, or the bucket cannot be read.
    """
    try:
        sums = json.loads((shared / _LIST).read_text())
        for name in sums:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (shared / name).copy(epath.Path(target / name), overwrite=True)
    except Exception as error:
        raise _unreached(shared, error) from error
    for name, expected in sums.items():
        if fingerprint.sha256(target / name) != expected:
            raise UserError(
                f"{shared / name} is damaged: delete the folder {shared}, and it is built again"
            )


def _unreached(shared: epath.Path, error: Exception) -> UserError:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(
        f"the cache {shared} cannot be reached ({line}): correct PODIUM_CACHE, or try again"
    )
