"""Parameters that are filled a part at a time, where they lie: no device sees another's part."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


class Filling:
    """An array of zeros on the devices that it is for, to be filled.

    Each device has its own shard, and parts are written into it in place. (One program over all
    devices would bring the array whole to each of them, where a part lies across shards.)

    Args:
      like: shape, dtype and sharding.
    """

    def __init__(self, like: jax.ShapeDtypeStruct) -> None:
        self._like = like
        where = like.sharding.addressable_devices_indices_map(like.shape)
        self._bounds = {
            device: tuple(
                part.indices(size)[:2] for part, size in zip(index, like.shape, strict=True)
            )
            for device, index in where.items()
        }
        self._shards = {
            device: jnp.zeros([b - a for a, b in bounds], like.dtype, device=device)
            for device, bounds in self._bounds.items()
        }

    def wants(self, start: Sequence[int], shape: Sequence[int]) -> bool:
        """Whether a device of this process has any of a part."""
        return any(_overlap(bounds, start, shape) for bounds in self._bounds.values())

    def put(self, start: Sequence[int], part: np.ndarray) -> None:
        """Writes a part, in the dtype that it has until it is on its device.

        Args:
          start: index of its first entry.
          part: has all dimensions.
        """
        for device, bounds in self._bounds.items():
            both = _overlap(bounds, start, part.shape)
            if both is None:
                continue
            own = part[tuple(slice(a - s, b - s) for (a, b), s in zip(both, start, strict=True))]
            at = [np.int32(a - begin) for (a, _), (begin, _) in zip(both, bounds, strict=True)]
            on_device = jax.device_put(np.ascontiguousarray(own), device)
            self._shards[device] = _write(self._shards[device], on_device, at)
        jax.block_until_ready(list(self._shards.values()))  # what waits holds memory of the host

    def array(self) -> jax.Array:
        """The array; it is not filled any more."""
        assert self._like.sharding is not None
        shards = list(self._shards.values())
        return jax.make_array_from_single_device_arrays(
            self._like.shape, self._like.sharding, shards, dtype=self._like.dtype
        )


def _write(shard: jax.Array, part: jax.Array, at: Sequence[np.int32]) -> jax.Array:
    return jax.lax.dynamic_update_slice(shard, part.astype(shard.dtype), at)


_write = jax.jit(_write, donate_argnums=0)


def _overlap(
    bounds: Sequence[tuple[int, int]], start: Sequence[int], shape: Sequence[int]
) -> list[tuple[int, int]] | None:
    """Where a part and a shard are both, dimension by dimension; None if nowhere."""
    both = [
        (max(a, s), min(b, s + size)) for (a, b), s, size in zip(bounds, start, shape, strict=True)
    ]
    return both if all(a < b for a, b in both) else None
