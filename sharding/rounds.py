"""Tokens travel to the devices that have their experts, and back: in rounds, until none is left.

R devices along `expert` have E / R of the experts each. No token is dropped, so that in one
exchange of everything a device would need room for all that all others could send it: for T tokens
of its own R x T x min(A, E / R) rows of D, and as many of the hidden width, though about T x A
come. In a round a device sends each other at most ROOM x T x A / R rows, and so has room for ROOM
x T x A, whatever the router does. Where experts are about equally busy, one round is all. Where
they are not, there are as many as the busiest pair of devices needs, the same number on all. (What
also has a bound, to gather all tokens along `expert` and to add up what comes of them, moves and
holds R x T rows: more, where R is larger than ROOM x A.) Hidden activations are not kept for the
backward pass but computed again there, round by round; so are exchanges, one more than forward.

Where devices can, only rows that are there travel (`ragged_all_to_all`), elsewhere all the room
does (`all_to_all`; see sharding/experts.py). Both put rows in the same places.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from model.config import ModelConfig
from model.grouped import Grouped
from model.layers import ExpertWeights, matmul_precision
from model.mlp import ACTIVATIONS
from model.moe import Order, by_row, in_order, mlps
from sharding import collectives
from sharding.collectives import Axes

FIRST, LATER = "first_round", "later_rounds"
"""Names in a compiled program: of what is done once, and of the loop over what is left then, which
runs as often as it takes."""

ROOM = 1.5
"""For rows from one device to another in a round: in what there would be if every device sent every
other as many."""

_BLOCK = 16
"""Rows that travel together: so many of bfloat16 lie side by side in a TPU's memory, whose compiler
would put each by itself first."""

_ROWS = 512  # all buffers of a round together have a multiple of so many: what kernels like


class Ring(NamedTuple):
    """Devices that exchange tokens. It is hashable: JAX compiles for it.

    Attributes:
      config: of the decoder.
      grouped: multiplies (model/grouped.py).
      axes, size: the mesh axis that they lie along, and how many they are: R.
      tokens: mesh axes along which tokens are split: all that have to agree how many rounds.
      ragged: whether only rows that are there travel.
    """

    config: ModelConfig
    grouped: Grouped
    axes: Axes
    size: int
    tokens: Axes
    ragged: bool

    def mlps(
        self, x_MD: jax.Array, by_M: jax.Array, sizes_E: jax.Array, of: ExpertWeights
    ) -> jax.Array:
        """The experts' MLPs, see model/moe.py."""
        return mlps(self.grouped, ACTIVATIONS[self.config.mlp], x_MD, by_M, sizes_E, of)

    def exchange(self, x_RCD: jax.Array, sent_R: jax.Array, received_R: jax.Array) -> jax.Array:
        """To each device r its x_RCD[r], of which the first sent_R[r] rows are meant. Of what comes
        from r the first received_R[r] are; the rest is of no meaning, but finite.
        """
        if not self.ragged:
            return self.exchange_all(x_RCD)
        _, room, width = x_RCD.shape
        blocks = x_RCD.reshape(-1, _BLOCK, width)
        sent_R, received_R = -(-sent_R // _BLOCK), -(-received_R // _BLOCK)
        # All of them made of what is mapped: where stages call this, under `jax.vmap`, JAX's rule
        # takes no others.
        each = room // _BLOCK + 0 * sent_R
        y = jax.lax.ragged_all_to_all(
            blocks,
            jnp.zeros_like(blocks),
            each * jnp.arange(self.size, dtype=jnp.int32),
            sent_R,
            each * collectives.index(self.axes),
            received_R,
            axis_name=self.axes,
        )
        return y.reshape(x_RCD.shape)

    def exchange_all(self, x_RC: jax.Array) -> jax.Array:
        """To each device r its x_RC[r], all of it."""
        return jax.lax.all_to_all(x_RC, self.axes, 0, 0)


def in_rounds(
    ring: Ring,
    x_BTD: jax.Array,
    ids_BTA: jax.Array,
    weights_BTA: jax.Array,
    of: ExpertWeights,
) -> jax.Array:
    """The `experts` of a device that has a part of them; inside `shard_map`."""
    ids_NA = ids_BTA.reshape(-1, ids_BTA.shape[-1])
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
    y_ND = _travelled(ring, x_ND, ids_NA, weights_BTA.reshape(ids_NA.shape), of)
    return y_ND.reshape(x_BTD.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _travelled(
    ring: Ring, x_ND: jax.Array, ids_NA: jax.Array, weights_NA: jax.Array, of: ExpertWeights
) -> jax.Array:
    trips = plan(ring, ids_NA, of.up_EDF.shape[0])

    def go(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        number, y_ND = carry
        one = _round(ring, trips, weights_NA, number)
        with matmul_precision(ring.config):
            y_QD = ring.mlps(one.there(x_ND), one.weights_Q, one.order.sizes_E, of)
        return number + 1, y_ND + one.back(y_QD)

    start = (jnp.zeros((), jnp.int32), jnp.zeros(x_ND.shape, jnp.float32))
    return _until_done(trips, go, start).astype(x_ND.dtype)


def _forward(ring: Ring, *given: Any) -> tuple[jax.Array, Any]:
    return _travelled(ring, *given), given


def _backward(ring: Ring, given: Any, grad_ND: jax.Array) -> Any:
    x_ND, ids_NA, weights_NA, of = given
    trips = plan(ring, ids_NA, of.up_EDF.shape[0])

    def go(carry: Any) -> Any:
        number, grads = carry
        one = _round(ring, trips, weights_NA, number)

        def computed(x_QD: jax.Array, weights_Q: jax.Array, of: ExpertWeights) -> jax.Array:
            with matmul_precision(ring.config):
                return ring.mlps(x_QD, weights_Q, one.order.sizes_E, of)

        _, slopes = jax.vjp(computed, one.there(x_ND), one.weights_Q, of)
        grad_QD, grad_Q, grad_of = slopes(one.there(grad_ND))
        found = (
            one.back(grad_QD),
            one.numbers_back(grad_Q),
            jax.tree.map(lambda g: g.astype(jnp.float32), grad_of),
        )
        return number + 1, jax.tree.map(jnp.add, grads, found)

    like = (x_ND, weights_NA, of)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), like)
    grads = _until_done(trips, go, (jnp.zeros((), jnp.int32), zeros))
    grad_x, grad_weights, grad_of = jax.tree.map(lambda g, x: g.astype(x.dtype), grads, like)
    return grad_x, None, grad_weights, grad_of


_travelled.defvjp(_forward, _backward)


def _until_done(trips: "Trips", go: Callable[[Any], Any], start: tuple[jax.Array, Any]) -> Any:
    """All rounds. The first, which is most often the last, is outside of the loop: what it
    exchanges can travel beside what else a layer computes.
    """
    with jax.named_scope(FIRST):
        after = go(start)
    with jax.named_scope(LATER):
        return jax.lax.while_loop(lambda carry: carry[0] < trips.rounds, go, after)[1]


class Trips(NamedTuple):
    """Which rows travel when.

    Attributes:
      order: of a device's tokens, by expert and so by the device that has it.
      expert_M: which of that device's experts a row is for.
      first_R, count_R: the first row for each device, and how many there are.
      round_NA, place_NA: when the row of each (token, expert) travels, -1 if it does not; and where
        in [R, C] it lies then.
      here: experts of a device.
      room: C, rows of a round for one device.
      rounds: how many there are.
    """

    order: Order
    expert_M: jax.Array
    first_R: jax.Array
    count_R: jax.Array
    round_NA: jax.Array
    place_NA: jax.Array
    here: int
    room: int
    rounds: jax.Array


def plan(ring: Ring, ids_NA: jax.Array, here: int) -> Trips:
    """Plans the trips of a device's tokens, each to its experts' devices with `here` each."""
    order = in_order(ids_NA, ring.size * here)
    count_R = jnp.sum(order.sizes_E.reshape(ring.size, here), axis=1)
    first_R = jnp.cumsum(count_R) - count_R
    tokens, each = ids_NA.shape
    room = min(-(-int(ROOM * tokens * each) // ring.size), tokens * min(each, here))
    multiple = math.lcm(_BLOCK, _ROWS // math.gcd(_ROWS, ring.size))
    room = -(-room // multiple) * multiple
    to_NA = ids_NA // here
    nth_NA = order.row_NA - jnp.take(first_R, to_NA, mode="clip")
    travels_NA = to_NA < ring.size
    return Trips(
        order,
        by_row(ids_NA, order) % here,
        first_R,
        count_R,
        jnp.where(travels_NA, nth_NA // room, -1),
        jnp.where(travels_NA, to_NA * room + nth_NA % room, 0),
        here,
        room,
        collectives.largest(-(-jnp.max(count_R) // room), ring.tokens),
    )


class _Round(NamedTuple):
    """One round, seen from both ends: Q = R x C rows, [R, C] as they travel.

    Attributes:
      ring, trips: see there.
      number: of the round.
      token_RC: what this device sends.
      sent_R, received_R: rows that it sends to, and gets from, each device.
      order: of the rows that it gets, by expert.
      weights_Q: of these, in this order.
    """

    ring: Ring
    trips: Trips
    number: jax.Array
    token_RC: jax.Array
    sent_R: jax.Array
    received_R: jax.Array
    order: Order
    weights_Q: jax.Array

    def there(self, x_ND: jax.Array) -> jax.Array:
        """This round's tokens on the devices that have their experts, in the order of those."""
        x_RCD = self.ring.exchange(x_ND[self.token_RC], self.sent_R, self.received_R)
        return x_RCD.reshape(-1, x_ND.shape[1])[self.order.at_M]

    def back(self, y_QD: jax.Array) -> jax.Array:
        """What became of them, at each token the sum of its rows of this round; float32."""
        y_RCD = y_QD[self.order.row_NA].reshape(self.ring.size, self.trips.room, -1)
        y_RCD = self.ring.exchange(y_RCD, self.received_R, self.sent_R)
        y_NAD = y_RCD.reshape(-1, y_QD.shape[1])[self.trips.place_NA]
        return jnp.sum(jnp.where(self._mine[..., None], y_NAD, 0), axis=1, dtype=jnp.float32)

    def numbers_back(self, y_Q: jax.Array) -> jax.Array:
        """A number of each row, at each (token, expert); 0 where the row is of another round."""
        y_RC = y_Q[self.order.row_NA].reshape(self.ring.size, self.trips.room)
        y_RC = self.ring.exchange_all(y_RC)
        return jnp.where(self._mine, y_RC.ravel()[self.trips.place_NA], 0)

    @property
    def _mine(self) -> jax.Array:
        return self.trips.round_NA == self.number


def _round(ring: Ring, trips: Trips, weights_NA: jax.Array, number: jax.Array) -> _Round:
    """Tells each device what will come to it in a round."""
    nth_RC = (number * trips.room + jnp.arange(trips.room))[None]
    travels_RC = nth_RC < trips.count_R[:, None]
    row_RC = jnp.where(travels_RC, trips.first_R[:, None] + nth_RC, 0)
    expert_RC = ring.exchange_all(jnp.where(travels_RC, trips.expert_M[row_RC], trips.here))
    weights_RC = ring.exchange_all(by_row(weights_NA, trips.order)[row_RC])
    order = in_order(expert_RC.reshape(-1, 1), trips.here)
    return _Round(
        ring,
        trips,
        number,
        trips.order.token_M[row_RC],
        jnp.sum(travels_RC, axis=1, dtype=jnp.int32),
        jnp.sum(expert_RC < trips.here, axis=1, dtype=jnp.int32),
        order,
        weights_RC.ravel()[order.at_M],
    )
