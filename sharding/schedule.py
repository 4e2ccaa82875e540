"""Layers in stages: which stage works on what, and when.

Each device along the mesh axis `pipeline` is a stage. It has some of the layers, and microbatches
pass through the stages: all work at once, each on another microbatch, and then hand on what they
have made. Of the layers, in `stages` x `rounds` groups, stage s has the groups s, s + stages, ...,
and a microbatch makes as many rounds through the stages. More rounds make the time shorter in which
stages have nothing to do, at the begin and at the end, for more exchanges (the interleaved schedule
of Narayanan et al. 2021; one round is the order of GPipe, Huang et al. 2019).
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sharding.config import MeshConfig
from sharding.table import ShardingError, ways

_A_STAGE = 4
"""Microbatches for each stage, where the rows allow it: then little time is lost (GPipe)."""


class Schedule(NamedTuple):
    """What each stage does one after the other, its items: a microbatch in a round each.

    Attributes:
      stages: devices along `pipeline`.
      rounds: through all stages that a microbatch makes.
      microbatches: in which rows go through; with several rounds a multiple of `stages`.
    """

    stages: int
    rounds: int
    microbatches: int

    @property
    def items(self) -> int:
        """Of each stage. Stage s is at its first one in iteration s."""
        return self.rounds * self.microbatches

    @property
    def iterations(self) -> int:
        """Until the last stage has done its items."""
        return self.items + self.stages - 1

    @property
    def bubble(self) -> float:
        """The part of the time in which a stage has nothing to do."""
        return (self.stages - 1) / self.iterations

    @property
    def together(self) -> int:
        """How many microbatches make all their rounds before the next ones begin theirs.

        As many as there are stages: what leaves the last stage is what the first needs next.
        """
        return self.microbatches if self.rounds == 1 else self.stages

    def item(self, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The microbatch and the round of items, of the nearest one where there is none."""
        index = jnp.clip(index, 0, self.items - 1)
        turn, within = jnp.divmod(index, self.rounds * self.together)
        return turn * self.together + within % self.together, within // self.together


def schedule(mesh: Mesh, config: MeshConfig, rows: int, source: str = "the batch") -> Schedule:
    """How a batch goes through the stages.

    Args:
      mesh: the mesh.
      config: rounds and microbatches.
      rows: that go through the model at once, over all devices.
      source: what sets them.

    Raises:
      ShardingError: the rows on a device cannot be split into microbatches.
    """
    stages, asked, split = mesh.shape["pipeline"], config.microbatches, ways(mesh, "batch")
    here = rows // split
    if asked and (not here or here % asked):
        raise ShardingError(
            f"microbatches={asked} does not divide {here}, the rows of {source}={rows} that a "
            f"device has; make {source} a multiple of {split * asked}, or choose a divisor"
        )
    fitting = (n * stages for n in range(_A_STAGE, 0, -1) if here and not here % (n * stages))
    count = asked or next(fitting, 0)
    if not count:
        raise ShardingError(
            f"pipeline={stages} does not divide {here}, the rows of {source}={rows} that a device "
            f"has, into microbatches; make {source} a multiple of {split * stages}, or set "
            "microbatches to a divisor"
        )
    return Schedule(stages, config.rounds, count)


def check(
    mesh: Mesh, config: MeshConfig, layers: int, batches: Mapping[str, int], others: int = 0
) -> None:
    """Proves, before anything is compiled, that layers and rows go through the stages.

    Args:
      mesh: the mesh.
      config: rounds and microbatches.
      layers: of the model.
      batches: rows that go through the model at once, over all devices, by what sets them.
      others: of the layers, the first ones, which are of another kind than the rest.

    Raises:
      ShardingError: if they do not.
    """
    stages, rounds = mesh.shape["pipeline"], config.rounds
    if stages == 1:
        for key, default in (("rounds", 1), ("microbatches", 0)):
            if (value := getattr(config, key)) != default:
                raise ShardingError(
                    f"{key}={value} would do nothing without stages; set {key}={default}, or "
                    "pipeline to their number"
                )
        return
    if others:
        raise ShardingError(
            f"pipeline={stages}: the first {others} of {layers} layers (model.moe.first_dense) are "
            "of another kind, and stages have layers of one; set pipeline=1, or moe.first_dense=0"
        )
    if layers % (stages * rounds):
        times = f" x rounds={rounds}" if rounds > 1 else ""
        raise ShardingError(
            f"pipeline={stages}{times} does not divide {layers}, the layers of the model "
            f"(model.num_layers); choose sizes whose product divides {layers}"
        )
    if rounds > 1 and config.microbatches % stages:
        raise ShardingError(
            f"microbatches={config.microbatches} is not a multiple of pipeline={stages}, which "
            f"rounds={rounds} needs; make it one, or 0 for a number that fits"
        )
    for source, rows in batches.items():
        schedule(mesh, config, rows, source)


def order(stages: int, rounds: int, layers: int) -> tuple[int, ...]:
    """Which layer, counted from the input, lies where among those stacked: stage by stage."""
    size = layers // (stages * rounds)
    return tuple(
        (r * stages + s) * size + i
        for s in range(stages)
        for r in range(rounds)
        for i in range(size)
    )
