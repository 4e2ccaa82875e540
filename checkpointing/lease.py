"""A lease on a folder of a bucket, which has no locks: a word that its owner keeps writing anew."""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from etils import epath

from errors import UserError

LEASE_S = float(os.environ.get("PODIUM_LEASE_S", "30"))
"""A lease that was not renewed for so long, by the clock of who waits for it, is free."""


class Lease:
    """The lease at `path`, acquired; a thread renews it.

    A store of objects has no lock that dies with its owner. So the owner writes the object again
    and again; who finds it waits for one lease, and takes it if nothing was written meanwhile.
    Clocks are never compared. An owner that was away for longer (suspended, cut off) finds
    another's name and stops.

    Args:
      path: of the object.
      reached: a context that makes a line of the bucket's errors.
      seconds: the lease.
      say: where people read what is waited for.

    Raises:
      UserError: another run has it.
    """

    def __init__(
        self,
        path: epath.Path,
        reached: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        seconds: float = LEASE_S,
        say: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self._path, self._reached, self._seconds, self._say = path, reached, seconds, say
        self._name = f"{socket.gethostname()}, process {os.getpid()}, {secrets.token_hex(4)}"
        self._renewals = 0
        self._acquire()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Call before every save.

        Raises:
          UserError: another run has it.
        """
        with self._reached():
            owner = self._owner()
        if owner != self._name:
            raise UserError(
                f"{self._path.parent} was taken over by {owner or 'nobody: its lease was deleted'}"
                "; this run stops, and saves nothing more"
            )

    def release(self) -> None:
        """Gives the lease back, so that the next run need not wait for it to end."""
        self._stop.set()
        self._thread.join(self._seconds)
        # A bucket that does not answer only makes the next run wait: no reason to hide an error.
        with contextlib.suppress(Exception):
            if self._owner() == self._name:
                self._path.unlink(missing_ok=True)

    def _acquire(self) -> None:
        if self._create():
            return
        seen, since = self._read(), time.monotonic()
        owner = json.loads(seen)["owner"] if seen else "a run that has just ended"
        self._say(
            f"{self._path.parent} was last used by {owner}: waiting {self._seconds:.0f}s to see "
            "whether it still is"
        )
        while seen and time.monotonic() - since < self._seconds:
            time.sleep(self._seconds / 20)
            now = self._read()
            if now is not None and now != seen:
                owner = json.loads(now)["owner"]
                raise UserError(
                    f"{self._path.parent} is in use by {owner}: wait for it, stop it, or choose "
                    "another --workdir"
                )
            seen = now
        self._write()
        # Of two that took it at the same time, the last one to write has it.
        time.sleep(self._seconds / 10)
        if (owner := self._owner()) != self._name:
            raise UserError(f"{self._path.parent} is in use by {owner}, which was quicker")

    def _renew(self) -> None:
        while not self._stop.wait(self._seconds / 5):
            # A bucket that does not answer is no reason to stop: check() will see who has it.
            with contextlib.suppress(Exception):
                if self._owner() != self._name:
                    return
                self._write()

    def _owner(self) -> str:
        text = self._read()
        return json.loads(text)["owner"] if text else ""

    def _read(self) -> str | None:
        # Past gcsfs's own memory of what is there.
        try:
            return self._file_system().cat_file(str(self._path)).decode()
        except FileNotFoundError:
            return None

    def _write(self) -> None:
        self._renewals += 1
        self._file_system().pipe_file(str(self._path), self._text())

    def _create(self) -> bool:
        """Writes the object if there is none: of many that try, one succeeds."""
        try:
            self._file_system().pipe_file(str(self._path), self._text(), mode="create")
        except FileExistsError:
            return False
        return True

    def _text(self) -> bytes:
        return json.dumps({"owner": self._name, "renewals": self._renewals}).encode()

    def _file_system(self) -> Any:
        import gcsfs  # an extra: only runs in a bucket need it

        return gcsfs.GCSFileSystem()
