"""SIGTERM and Ctrl-C at any moment: save what can be saved, and leave together."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cluster.watch import Watch

_GRACE_S = 3.0  # for the main thread to leave by itself, and to tidy up on its way
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Vote = Callable[[], jax.Array | bool]


class BrokenOff(Exception):
    """The vote was to stop before something long had ended."""


class Interrupted(BaseException):
    """A signal ends this process, which had nothing to save.

    Attributes:
      signal: its name.
      code: the exit code.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number).name
        self.code = 128 + number


class Interrupts:
    """Within its `with` block, the first SIGTERM or SIGINT ends the process within seconds.

    Within `noted`, where there are steps to save, the first signal is only noted, and a second one
    ends the process. Python runs its signal handlers between two of the main thread's
    instructions, so not while XLA compiles, which may take minutes: a thread that waits for
    signals makes sure that the process ends then, too.

    Args:
      watch: tells the other processes of an end.

    Attributes:
      signal: the name of the signal that was noted, or None.
    """

    def __init__(self, watch: Watch) -> None:
        self.signal: str | None = None
        self._watch = watch
        self._noting = self._raised = False
        self._over = threading.Event()
        self._read, self._write = os.pipe()

    def __enter__(self) -> "Interrupts":
        os.set_blocking(self._write, False)
        self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, self._note) for number in _SIGNALS}
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._over.set()
        os.close(self._write)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Within this block the first signal is noted, in `signal`, and nothing else happens."""
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def obey(self) -> None:
        """Raises Interrupted if a signal was noted that nobody has acted on."""
        if self.signal is not None:
            raise Interrupted(signal.Signals[self.signal])

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noting and self.signal is None:
            self.signal = signal.Signals(number).name
        elif not self._raised:  # once: a second one must not break off the way out
            self._raised = True
            raise Interrupted(number)

    def _listen(self) -> None:
        """Ends the process where the main thread does not."""
        noted = False
        while byte := os.read(self._read, 1):
            if byte[0] not in _SIGNALS:
                continue
            if self._noting and not noted:
                noted = True
                continue
            if self._over.wait(_GRACE_S):
                return
            self._watch.end(*farewell(self._watch, Interrupted(byte[0])))

    def voter(self, mesh: Mesh) -> Vote:
        """A function that adds this process's wish to stop to the others', without waiting.

        A signal may reach one process of many, at any moment. So each process puts its wish into
        a vote that is summed over all devices, once a step: the sum that belongs to step k is the
        same everywhere, and so is the decision.
        """
        if jax.process_count() == 1:
            return lambda: self.signal is not None
        devices = mesh.devices.reshape(-1)
        local = [d for d in devices if d.process_index == jax.process_index()]
        flat = Mesh(devices, ("all",))
        each = NamedSharding(flat, PartitionSpec("all"))
        add = jax.jit(jnp.sum, out_shardings=NamedSharding(flat, PartitionSpec()))

        def vote() -> jax.Array:
            mine = np.array([self.signal is not None], np.int32)
            ballots = [jax.device_put(mine, device) for device in local]
            return add(jax.make_array_from_single_device_arrays((len(devices),), each, ballots))

        return vote


def farewell(watch: Watch, interrupted: Interrupted) -> tuple[str, int]:
    """The line and the exit code with which a process that was interrupted ends."""
    line = f"stopped by {interrupted.signal} while {watch.now}: nothing that was saved is lost"
    return line, interrupted.code
