"""SIGTERM and Ctrl-C: every process stops after the same step."""

import signal
from types import FrameType, TracebackType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Interrupts:
    """Within its `with` block, the first SIGTERM or SIGINT asks for a stop; a second kills.

    A signal may reach one process of many, at any moment. So each process puts its wish into
    a vote that is summed over all devices, once a step and without waiting for it: the sum that
    belongs to step k is the same everywhere, and so is the decision.
    """

    def __init__(self, mesh: Mesh):
        self.signal: str | None = None
        self._devices = mesh.devices.reshape(-1)
        self._many = jax.process_count() > 1
        flat = Mesh(self._devices, ("all",))
        self._each = NamedSharding(flat, PartitionSpec("all"))
        self._sum = jax.jit(jnp.sum, out_shardings=NamedSharding(flat, PartitionSpec()))

    def __enter__(self) -> "Interrupts":
        self._old = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        signal.signal(number, self._old[signal.Signals(number)])

    def vote(self) -> jax.Array | bool:
        """This process's wish, added to the others': dispatched, not waited for."""
        if not self._many:
            return self.signal is not None
        mine = np.array([self.signal is not None], np.int32)
        local = [d for d in self._devices if d.process_index == jax.process_index()]
        ballots = [jax.device_put(mine, device) for device in local]
        shape = (len(self._devices),)
        return self._sum(jax.make_array_from_single_device_arrays(shape, self._each, ballots))
