"""Mixtures of experts on a mesh: tokens travel to the devices that have their experts, and back.

Each device routes its own tokens: rows are split over `data`, `fsdp` and `expert`, their length
over `context`. Without `expert`, every device has all experts while it computes: their weights are
gathered along `fsdp` and `context`, in the dtype that they are multiplied in, once a layer and
pass. With it, a device has E / R of the experts, R devices along `expert` exchange tokens, and the
rest of the mesh does as before. `tensor` splits the hidden width of each expert; its devices add up
what they have of the outputs, and each keeps its part of the length.

No token is dropped. In one exchange of everything a device would have to have room for all that
all R devices could send it, R x T x min(A, E / R) rows of D for T tokens of its own, though about
T x A come. So tokens travel in rounds: in each a device sends every other at most ROOM x T x A / R
rows, and has buffers for ROOM x T x A, whatever the router does. Where experts are about equally
busy there is one round. Where they are not there are as many as the busiest pair of devices needs,
the same number on all: the loop ends when nothing is left. That holds for the hidden activations
too, which are not kept for the backward pass but computed again there, round by round.

On TPUs and GPUs a round's exchange is `ragged_all_to_all`, in which only the rows there are travel;
elsewhere `all_to_all`, in which all the room does. Both put them in the same places.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from model import grouped as xla
from model.config import ModelConfig
from model.grouped import Grouped
from model.kernels import megablox
from model.layers import Experts, ExpertWeights, matmul_precision
from model.moe import Order, by_row, in_order, mlps, on_one
from sharding import collectives
from sharding.collectives import Axes
from sharding.table import mesh_axes, sharding

ROOM = 1.5
"""Room for rows from one device to another in a round, in what there would be if every device sent
every other as many."""


class Kernel(NamedTuple):
    """Attributes:
    name: for people.
    grouped: see model/grouped.py.
    """

    name: str
    grouped: Grouped


def kernel(mesh: Mesh, config: ModelConfig) -> Kernel:
    """What multiplies with experts on the devices of a mesh, whether they are here or not.

    On TPUs Megablox: XLA has a kernel of its own for v5p, but on v5e and v6e multiplies every row
    with every expert. In float32 Megablox would multiply with less than its precision.
    """
    if mesh.devices.flat[0].platform == "tpu" and config.dtype == "bfloat16":
        return Kernel("Megablox (Pallas)", megablox.grouped)
    return Kernel("ragged dot (XLA)", xla.ragged)


def experts(mesh: Mesh, config: ModelConfig) -> Experts | None:
    """The `experts` that the model is handed; None for a dense model."""
    if not config.moe.num_experts:
        return None
    grouped = kernel(mesh, config).grouped
    if mesh.size == 1:
        return on_one(grouped)
    exchanged = mesh_axes(mesh, "experts", config.moe.num_experts)
    tokens = (*mesh_axes(mesh, "batch", None), *mesh_axes(mesh, "length", None))
    ragged = mesh.devices.flat[0].platform != "cpu"
    here = on_one(grouped)
    if exchanged:
        ring = _Ring(config, grouped, exchanged, mesh.shape[exchanged[0]], tokens, ragged)
        here = functools.partial(_in_rounds, ring)
    return functools.partial(_on_mesh, mesh, here)


def _on_mesh(
    mesh: Mesh,
    here: Experts,
    x_BTD: jax.Array,
    ids_BTA: jax.Array,
    weights_BTA: jax.Array,
    of: ExpertWeights,
) -> jax.Array:
    """`here` on every device, with its tokens and, of the experts it has, all of D."""

    def spec(axes: tuple[str, ...], x: jax.Array) -> Any:
        return sharding(mesh, axes, x.shape).spec

    embed = mesh_axes(mesh, "expert_embed", None)
    hidden = mesh_axes(mesh, "mlp", None)
    between = mesh_axes(mesh, "act_length", x_BTD.shape[1])
    wide, narrow = ("experts", "expert_embed", "mlp"), ("experts", "mlp", "expert_embed")
    axes = ExpertWeights(wide, None if of.gate_EDF is None else wide, narrow)

    def whole(axes: tuple[str, ...], w: jax.Array) -> jax.Array:
        return collectives.gathered(w, embed, axes.index("expert_embed"))

    # The backward pass gathers again, whatever remat keeps: all weights would be kept whole.
    @functools.partial(jax.checkpoint, policy=lambda made_by, *_, **__: made_by.name != "all_gather")
    def on_device(
        x_BTD: jax.Array, ids_BTA: jax.Array, weights_BTA: jax.Array, of: ExpertWeights
    ) -> jax.Array:
        y_BTD = here(x_BTD, ids_BTA, weights_BTA, _each(whole, axes, of))
        if set(hidden) <= set(between):
            return collectives.scattered(y_BTD, hidden, 1)
        return collectives.total(y_BTD, hidden)

    chosen = ("batch", "length", "whole")
    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(
            spec(("batch", "length", "act_embed"), x_BTD),
            spec(chosen, ids_BTA),
            spec(chosen, weights_BTA),
            _each(spec, axes, of),
        ),
        out_specs=spec(("batch", "act_length", "act_embed"), x_BTD),
        check_vma=False,  # kernels do not say which axes their results vary along
    )(x_BTD, ids_BTA, weights_BTA, of)


def _each(function: Callable[..., Any], axes: ExpertWeights, of: ExpertWeights) -> ExpertWeights:
    """A function of the logical axes and the array of each."""
    return ExpertWeights(
        *(None if w is None else function(names, w) for names, w in zip(axes, of, strict=True))
    )


class _Ring(NamedTuple):
    """Devices that exchange tokens. It is hashable: JAX compiles for it.

    Attributes:
      config: of the decoder.
      grouped: multiplies.
      axes, size: the mesh axis that they lie along, and how many they are.
      tokens: mesh axes along which tokens are split: all that have to agree how many rounds.
      ragged: whether only the rows there are travel.
    """

    config: ModelConfig
    grouped: Grouped
    axes: Axes
    size: int
    tokens: Axes
    ragged: bool

    def exchange(self, x_RC: jax.Array, sent_R: jax.Array, received_R: jax.Array) -> jax.Array:
        """To each device its x_RC[r], of which the first sent_R[r] are meant: [R, C, ...]. Of what
        comes from r, the first received_R[r] are; the rest is of no meaning, but finite.
        """
        if not self.ragged:
            return self.exchange_all(x_RC)
        room = x_RC.shape[1]
        to = jnp.full(self.size, collectives.index(self.axes) * room, jnp.int32)
        flat = x_RC.reshape(-1, *x_RC.shape[2:])
        y = jax.lax.ragged_all_to_all(
            flat,
            jnp.zeros_like(flat),
            room * jnp.arange(self.size, dtype=jnp.int32),
            sent_R,
            to,
            received_R,
            axis_name=self.axes,
        )
        return y.reshape(x_RC.shape)

    def exchange_all(self, x_RC: jax.Array) -> jax.Array:
        """`exchange` of small numbers, room and all."""
        return jax.lax.all_to_all(x_RC, self.axes, 0, 0)


class _Trips(NamedTuple):
    """Which rows travel when.

    Attributes:
      order: of a device's tokens, by expert and so by the device that has it.
      expert_M: which of that device's experts a row is for.
      first_R, count_R: the first row for each device, and how many there are.
      round_NA, place_NA: when the row of each (token, expert) travels, never for none; and where
        in [R, C] it lies then.
      room: C.
      rounds: how many there are.
    """

    order: Order
    expert_M: jax.Array
    first_R: jax.Array
    count_R: jax.Array
    round_NA: jax.Array
    place_NA: jax.Array
    room: int
    rounds: jax.Array


def _trips(ring: _Ring, ids_NA: jax.Array, here: int) -> _Trips:
    """Plans them; `here` experts are on each device."""
    order = in_order(ids_NA, ring.size * here)
    count_R = jnp.sum(order.sizes_E.reshape(ring.size, here), axis=1)
    first_R = jnp.cumsum(count_R) - count_R
    room = -(-int(ROOM * ids_NA.size) // ring.size)
    room = -(-min(room, ids_NA.shape[0] * min(ids_NA.shape[1], here)) // _MULTIPLE) * _MULTIPLE
    to_NA = ids_NA // here
    nth_NA = order.row_NA - jnp.take(first_R, to_NA, mode="clip")
    travels_NA = to_NA < ring.size
    return _Trips(
        order,
        by_row(ids_NA, order) % here,
        first_R,
        count_R,
        jnp.where(travels_NA, nth_NA // room, -1),
        jnp.where(travels_NA, to_NA * room + nth_NA % room, 0),
        room,
        collectives.largest(-(-jnp.max(count_R) // room), ring.tokens),
    )


_MULTIPLE = 8  # rows of a buffer, for the sake of the hardware


class _Arrived(NamedTuple):
    """What a device has to compute in a round, sorted by expert: Q = R x C rows.

    Attributes:
      sent_R, received_R: rows that it sent to, and has got from, each device.
      by_Q: float32 weights.
      at_Q, row_Q: where in [R, C] each row was, and the other way round.
      sizes_E: rows of each of its experts.
    """

    sent_R: jax.Array
    received_R: jax.Array
    by_Q: jax.Array
    at_Q: jax.Array
    row_Q: jax.Array
    sizes_E: jax.Array


class _Round(NamedTuple):
    """One round, seen from both ends."""

    ring: _Ring
    trips: _Trips
    index: jax.Array
    row_RC: jax.Array
    arrived: _Arrived

    def there(self, x_ND: jax.Array) -> jax.Array:
        """This round's tokens, on the device that has their experts, in the order of those."""
        x_RCD = x_ND[self.trips.order.token_M[self.row_RC]]
        arrived = self.arrived
        x_RCD = self.ring.exchange(x_RCD, arrived.sent_R, arrived.received_R)
        return x_RCD.reshape(-1, x_ND.shape[1])[arrived.at_Q]

    def back(self, y_QD: jax.Array) -> jax.Array:
        """What became of them, back at each token: the sum of its rows of this round, float32."""
        arrived, trips = self.arrived, self.trips
        y_RCD = y_QD[arrived.row_Q].reshape(self.ring.size, trips.room, -1)
        y_RCD = self.ring.exchange(y_RCD, arrived.received_R, arrived.sent_R)
        y_NAD = y_RCD.reshape(-1, y_QD.shape[1])[trips.place_NA]
        mine_NA1 = (trips.round_NA == self.index)[..., None]
        return jnp.sum(jnp.where(mine_NA1, y_NAD, 0), axis=1, dtype=jnp.float32)


def _round(
    ring: _Ring, trips: _Trips, weights_NA: jax.Array, here: int, index: jax.Array
) -> _Round:
    """Tells each device what is to come to it in a round."""
    nth_RC = (index * trips.room + jnp.arange(trips.room))[None]
    travels_RC = nth_RC < trips.count_R[:, None]
    row_RC = jnp.where(travels_RC, trips.first_R[:, None] + nth_RC, 0)
    sent_R = jnp.sum(travels_RC, axis=1, dtype=jnp.int32)
    expert_RC = ring.exchange_all(jnp.where(travels_RC, trips.expert_M[row_RC], here))
    by_RC = ring.exchange_all(by_row(weights_NA, trips.order)[row_RC])
    arrived = in_order(expert_RC.reshape(-1, 1), here)
    received_R = jnp.sum(expert_RC < here, axis=1, dtype=jnp.int32)
    by_Q = by_RC.ravel()[arrived.at_M]
    whence = _Arrived(
        sent_R, received_R, by_Q, arrived.at_M, arrived.row_NA[:, 0], arrived.sizes_E
    )
    return _Round(ring, trips, index, row_RC, whence)


def _in_rounds(
    ring: _Ring,
    x_BTD: jax.Array,
    ids_BTA: jax.Array,
    weights_BTA: jax.Array,
    of: ExpertWeights,
) -> jax.Array:
    """The `experts` of a device that has a part of them."""
    ids_NA = ids_BTA.reshape(-1, ids_BTA.shape[-1])
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
    y_ND = _travelling(ring, x_ND, ids_NA, weights_BTA.reshape(ids_NA.shape), of)
    return y_ND.reshape(x_BTD.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _travelling(
    ring: _Ring, x_ND: jax.Array, ids_NA: jax.Array, weights_NA: jax.Array, of: ExpertWeights
) -> jax.Array:
    here = of.up_EDF.shape[0]
    trips = _trips(ring, ids_NA, here)

    def more(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, y_ND = carry
        one = _round(ring, trips, weights_NA, here, index)
        with matmul_precision(ring.config):
            y_QD = mlps(
                ring.grouped, one.there(x_ND), one.arrived.by_Q, one.arrived.sizes_E, of
            )
        return index + 1, y_ND + one.back(y_QD)

    start = (jnp.zeros((), jnp.int32), jnp.zeros(x_ND.shape, jnp.float32))
    _, y_ND = jax.lax.while_loop(lambda carry: carry[0] < trips.rounds, more, start)
    return y_ND.astype(x_ND.dtype)


def _forward(ring: _Ring, *given: Any) -> tuple[jax.Array, Any]:
    return _travelling(ring, *given), given


def _backward(ring: _Ring, given: Any, grad_ND: jax.Array) -> Any:
    x_ND, ids_NA, weights_NA, of = given
    here = of.up_EDF.shape[0]
    trips = _trips(ring, ids_NA, here)

    def more(carry: Any) -> Any:
        index, grads = carry
        one = _round(ring, trips, weights_NA, here, index)
        arrived = one.arrived

        def computed(x_QD: jax.Array, by_Q: jax.Array, of: ExpertWeights) -> jax.Array:
            with matmul_precision(ring.config):
                return mlps(ring.grouped, x_QD, by_Q, arrived.sizes_E, of)

        _, slopes = jax.vjp(computed, one.there(x_ND), arrived.by_Q, of)
        x_QD, by_Q, of_experts = slopes(one.there(grad_ND))
        by_RC = ring.exchange_all(by_Q[arrived.row_Q].reshape(ring.size, trips.room))
        mine_NA = trips.round_NA == index
        found = (
            one.back(x_QD),
            jnp.where(mine_NA, by_RC.ravel()[trips.place_NA], 0),
            jax.tree.map(lambda g: g.astype(jnp.float32), of_experts),
        )
        return index + 1, jax.tree.map(jnp.add, grads, found)

    like = (x_ND, weights_NA, of)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), like)
    start = (jnp.zeros((), jnp.int32), zeros)
    _, grads = jax.lax.while_loop(lambda carry: carry[0] < trips.rounds, more, start)
    x_ND, weights_NA, of = jax.tree.map(lambda g, x: g.astype(x.dtype), grads, like)
    return x_ND, None, weights_NA, of


_travelling.defvjp(_forward, _backward)
