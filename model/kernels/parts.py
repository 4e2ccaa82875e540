"""What kernels of attention share: how they want their arrays, and what a ring asks of them."""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

Starts = tuple[tuple[int, ...], ...]
"""Where the runs of tokens begin that a part of a row is made of, ascending, for each part."""

WHOLE: Starts = ((0,),)
"""The row is one part, and that one run."""


class Tokens(NamedTuple):
    """Some tokens of each row: runs of equal length.

    Attributes:
      segments_BT: int32, the runs one after the other.
      starts_R: int32, index in the row of the first token of each run, ascending.
    """

    segments_BT: jax.Array
    starts_R: jax.Array


class Runs(NamedTuple):
    """How tokens lie in a kernel: each run is padded at its end, with a document of its own.

    Attributes:
      number: of runs.
      length: of each, in tokens.
      padded: the length that a kernel wants.
    """

    number: int
    length: int
    padded: int

    def headed(self, x_BTNH: jax.Array, kv_heads: int) -> jax.Array:
        """[B, T, K x G, H] -> [B, K, G, T padded, H]."""
        batch, _, _, size = x_BTNH.shape
        x = self._pad(x_BTNH, 0)
        return x.reshape(batch, x.shape[1], kv_heads, -1, size).transpose(0, 2, 3, 1, 4)

    def segments(self, segments_BT: jax.Array) -> jax.Array:
        """[B, T] -> [B, T padded]."""
        return self._pad(segments_BT, -1)

    def rows(self, x: jax.Array) -> jax.Array:
        """[B, K, G, T padded, H] -> [B, T, K x G, H]."""
        batch, kv_heads, groups, _, size = x.shape
        x = x.transpose(0, 3, 1, 2, 4).reshape(batch, self.number, self.padded, -1, size)
        return x[:, :, : self.length].reshape(batch, -1, kv_heads * groups, size)

    def _pad(self, x: jax.Array, value: int) -> jax.Array:
        if self.padded == self.length:
            return x
        x = x.reshape(x.shape[0], self.number, self.length, *x.shape[2:])
        sides = ((0, 0), (0, 0), (0, self.padded - self.length), *((0, 0),) * (x.ndim - 3))
        x = jnp.pad(x, sides, constant_values=value)
        return x.reshape(x.shape[0], -1, *x.shape[3:])


class Mixed(NamedTuple):
    """Attention of queries to some keys.

    Attributes:
      out: mean of the values under the softmax over these keys [B, K, G, T, H].
      log_z: logarithm of the softmax's normalizer [B, K, G, T], float32; -inf of no keys.
    """

    out: jax.Array
    log_z: jax.Array


class Gradients(NamedTuple):
    """In queries, keys and values, shaped as they are."""

    q: jax.Array
    k: jax.Array
    v: jax.Array


class Parts(Protocol):
    """A kernel to which keys come in parts.

    Queries are [B, K, G, T, H], scaled; keys and values [B, K, S, H]; all runs are padded.
    """

    def padded(self, length: int) -> int:
        """The length that it wants a run of `length` tokens padded to."""

    def forward(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        queries: Tokens,
        keys: Tokens,
        own: bool,
        so_far: Mixed,
    ) -> Mixed:
        """Attention to these keys and to those that have been.

        Args:
          q, k, v: see above.
          queries, keys: which tokens these are.
          own: whether the keys are of the queries' own tokens.
          so_far: attention to the keys that have been, float32.
        """

    def backward(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        queries: Tokens,
        keys: Tokens,
        own: bool,
        mixed: Mixed,
        slope: jax.Array,
        along: jax.Array,
        so_far: Gradients,
    ) -> Gradients:
        """The gradients with what these queries and keys add to them.

        Args:
          q, k, v, queries, keys, own: as of `forward`.
          mixed: attention to all keys.
          slope: the gradient in its output.
          along: of both, from `along` below.
          so_far: in q from the keys that have been, in k and v from other queries; float32.
        """


def along(out: jax.Array, slope: jax.Array) -> jax.Array:
    """What each query's weights cannot change, since they sum to one: [..., H] -> [...], float32.

    It is all that gradients need of the output, which can go once this is known.
    """
    return jnp.sum(out.astype(jnp.float32) * slope.astype(jnp.float32), axis=-1)


def scaled(q_BTNH: jax.Array) -> jax.Array:
    """Queries whose products with keys are the scores; keeps dtype."""
    return (q_BTNH.astype(jnp.float32) * q_BTNH.shape[-1] ** -0.5).astype(q_BTNH.dtype)
