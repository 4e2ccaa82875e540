"""The key-value store that the processes of a run share, and the meeting that makes it.

JAX's coordination service has such a store, but no public interface to it: Orbax reaches for the
same private object. All that is private is in this file.
"""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from unittest import mock

import jax
from jax._src import distributed  # no public name gives the client
from jax._src.lib import _jax  # type: ignore[attr-defined]

from errors import UserError

HEARTBEAT_TIMEOUT_S = 55
"""After half to all of it XLA ends the others of a silent process; ours (watch.py) is shorter."""
_SHUTDOWN_TIMEOUT_S = 300  # at the end, for process 0, which writes the report
_GONE = ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION", "INTERNAL")
_MARGIN_S = 10  # in which process 0 hears from XLA who has not come, and the others from it
_SLICE_S = 1.0  # no wait inside XLA is longer, so that signals are seen in between


class LostCoordinator(Exception):
    """Process 0, which holds the store, does not answer."""


class KeyValues(Protocol):
    """What processes write for each other. A key is written by one process alone.

    Attributes:
      index: of this process.
      count: of all processes.
    """

    index: int
    count: int

    def put(self, key: str, value: str) -> None:
        """Writes a key, anew if it is there."""

    def put_first(self, key: str, value: str) -> bool:
        """Writes a key that any process may write: only the first does, and is told True."""

    def look(self, key: str) -> str | None:
        """The value of a key, or None; does not wait."""

    def look_all(self, folder: str) -> dict[int, str]:
        """The values of the keys folder/PROCESS, by process; does not wait."""

    def wait(self, key: str, timeout_s: float) -> str | None:
        """The value of a key as soon as it is there, or None after timeout_s."""


class OneProcess:
    """The store of a process that has no others."""

    index, count = 0, 1

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def put(self, key: str, value: str) -> None:
        self._values[key] = value

    def put_first(self, key: str, value: str) -> bool:
        return self._values.setdefault(key, value) is value

    def look(self, key: str) -> str | None:
        return self._values.get(key)

    def look_all(self, folder: str) -> dict[int, str]:
        return _by_process(folder, self._values)

    def wait(self, key: str, timeout_s: float) -> str | None:
        return self._values.get(key)  # nobody else will write it


class ManyProcesses:
    """The store of JAX's coordination service.

    Every method raises LostCoordinator if process 0 has gone.
    """

    _PREFIX = "podium/"  # Orbax and JAX keep keys of their own there

    def __init__(self, client: Any, index: int, count: int) -> None:
        self.index, self.count = index, count
        self._client = client

    def put(self, key: str, value: str) -> None:
        with _answered():
            self._client.key_value_set(self._PREFIX + key, value, allow_overwrite=True)

    def put_first(self, key: str, value: str) -> bool:
        with _answered("ALREADY_EXISTS"):
            self._client.key_value_set(self._PREFIX + key, value, allow_overwrite=False)
            return True
        return False

    def look(self, key: str) -> str | None:
        with _answered("NOT_FOUND"):
            return self._client.key_value_try_get(self._PREFIX + key)
        return None

    def look_all(self, folder: str) -> dict[int, str]:
        with _answered("NOT_FOUND"):
            found = dict(self._client.key_value_dir_get(f"{self._PREFIX}{folder}/"))
            return _by_process(self._PREFIX + folder, found)
        return {}

    def wait(self, key: str, timeout_s: float) -> str | None:
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            milliseconds = max(1, round(1000 * min(left, _SLICE_S)))
            with _answered("DEADLINE_EXCEEDED"):
                return self._client.blocking_key_value_get(self._PREFIX + key, milliseconds)
        return None


def _by_process(folder: str, values: Mapping[str, str]) -> dict[int, str]:
    """folder/PROCESS -> value, of the keys that have this form."""
    found = {}
    for key, value in values.items():
        where, _, process = key.rpartition("/")
        if where == folder and process.isdigit():
            found[int(process)] = value
    return dict(sorted(found.items()))


@contextlib.contextmanager
def _answered(*expected: str) -> Iterator[None]:
    """Passes over errors of the `expected` kinds; any other means that process 0 has gone."""
    try:
        yield
    except RuntimeError as error:  # XLA's errors begin with their kind
        if str(error).startswith(expected or ("\0",)):
            return
        if str(error).startswith(_GONE):
            raise LostCoordinator(str(error).splitlines()[0]) from error
        raise


def connect(
    address: str | None, count: int | None, index: int | None, timeout_s: int
) -> ManyProcesses:
    """Meets the other processes.

    Args:
      address: "host:port" of process 0; None asks the cluster (TPU pods, SLURM, GKE).
      count: of processes; None likewise.
      index: of this process; None likewise.
      timeout_s: how long to wait for all. After it XLA ends the processes that are there, with a
        message that names those that are not.

    Raises:
      UserError: the cluster does not say how to meet.
    """
    # XLA's preemption service would swallow SIGTERM to hand it out as a synchronisation point; our
    # vote (interrupts.py) does the same work with Ctrl-C too, and with one process.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    met = threading.Event()
    threading.Thread(
        target=_tell_waiting, args=(met, address, index, timeout_s), daemon=True
    ).start()
    make_service = _jax.get_distributed_runtime_service

    def make_bounded_service(*args: Any, **kwargs: Any) -> Any:
        # JAX leaves this one at an hour: only when it ends does XLA say who has not come.
        return make_service(*args, cluster_register_timeout=timeout_s, **kwargs)

    try:
        with mock.patch.object(_jax, "get_distributed_runtime_service", make_bounded_service):
            jax.distributed.initialize(
                address,
                count,
                index,
                initialization_timeout=timeout_s + _MARGIN_S,
                heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
                shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT_S,
            )
    except ValueError as error:
        raise UserError(
            f"cannot find the other processes ({error}): give --coordinator=HOST:PORT, "
            "--num_processes and --process_id"
        ) from None
    finally:
        met.set()
    state = distributed.global_state
    return ManyProcesses(state.client, state.process_id, state.num_processes)


def _tell_waiting(
    met: threading.Event, address: str | None, index: int | None, timeout_s: int
) -> None:
    """Says now and then what a process waits for before it has met the others."""
    began = time.monotonic()
    while not met.wait(10):
        waited = time.monotonic() - began
        what = "the other processes"
        if index and address and not _listens(address):
            what = f"process 0, which does not answer at {address}"
        at_most = timeout_s + _MARGIN_S
        print(
            f"waiting for {what} ({waited:.0f}s; the job ends after at most {at_most}s)",
            file=sys.stderr,
            flush=True,
        )


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except (OSError, ValueError):
        return False
    return True
