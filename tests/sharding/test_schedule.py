"""Which stage works on what and when: every microbatch passes every layer in order, in time."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from sharding.config import AXES, MeshConfig
from sharding.schedule import Schedule, check, order, schedule
from sharding.table import ShardingError

PLANS = [
    Schedule(stages, rounds, microbatches)
    for stages, rounds, microbatches in itertools.product((2, 3, 4), (1, 2, 3), (1, 2, 3, 4, 6, 8))
    if rounds == 1 or microbatches % stages == 0
]


def mesh(**sizes: int) -> Any:
    return AbstractMesh(tuple(sizes.get(axis, 1) for axis in AXES), AXES)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_every_microbatch_passes_all_groups_in_order(plan: Schedule) -> None:
    """And leaves a stage just before the next one needs it: nothing has to be kept for later."""
    done: dict[tuple[int, int], int] = {}
    for iteration in range(plan.iterations):
        items = iteration - np.arange(plan.stages)
        microbatches, rounds = plan.item(jnp.asarray(items))
        for stage, (item, microbatch, turn) in enumerate(
            zip(items, np.asarray(microbatches), np.asarray(rounds), strict=True)
        ):
            if not 0 <= item < plan.items:
                continue
            group = int(turn) * plan.stages + stage
            assert (int(microbatch), group) not in done
            done[int(microbatch), group] = iteration
            if group:
                assert done[int(microbatch), group - 1] == iteration - 1
    groups = plan.stages * plan.rounds
    assert set(done) == set(itertools.product(range(plan.microbatches), range(groups)))


def test_the_bubble_is_the_time_that_a_stage_has_no_item() -> None:
    plan = Schedule(4, 2, 8)
    assert (plan.items, plan.iterations) == (16, 19)
    assert plan.bubble == pytest.approx(3 / (2 * 8 + 3))


def test_the_order_of_layers() -> None:
    """Two stages, three rounds of two layers: stage 0 has the layers 0, 1, 4, 5, 8, 9."""
    assert order(2, 3, 12) == (0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11)
    assert order(4, 1, 8) == tuple(range(8))


@pytest.mark.parametrize(
    ("rows", "sizes", "microbatches"),
    [
        (64, dict(pipeline=2), 8),  # four for each stage
        (48, dict(pipeline=4), 16),
        (24, dict(pipeline=4), 12),  # no sixteen
        (24, dict(pipeline=4, data=3), 8),
        (24, dict(pipeline=4, data=3, fsdp=2), 4),
    ],
)
def test_as_many_microbatches_as_fit(rows: int, sizes: dict[str, int], microbatches: int) -> None:
    assert schedule(mesh(**sizes), MeshConfig(), rows).microbatches == microbatches


@pytest.mark.parametrize(
    ("sizes", "values", "says"),
    [
        (
            dict(pipeline=4),
            dict(),
            r"pipeline=4 does not divide 6, the layers of the model \(model.num_layers\); choose "
            "sizes whose product divides 6",
        ),
        (dict(pipeline=2), dict(rounds=2), "pipeline=2 x rounds=2 does not divide 6, the layers"),
        (
            dict(pipeline=2, data=2),
            dict(microbatches=3),
            "microbatches=3 does not divide 8, the rows of train.batch_size=16 that a device has; "
            "make train.batch_size a multiple of 6, or choose a divisor",
        ),
        (
            dict(pipeline=2, data=16),
            dict(),
            "pipeline=2 does not divide 1, the rows of train.batch_size=16 that a device has, into "
            "microbatches; make train.batch_size a multiple of 32, or set microbatches to a div",
        ),
        (
            dict(pipeline=2),
            dict(rounds=3, microbatches=1),
            "microbatches=1 is not a multiple of pipeline=2, which rounds=3 needs; make it one",
        ),
        (dict(data=2), dict(rounds=2), "rounds=2 would do nothing without stages; set rounds=1"),
        (dict(), dict(microbatches=4), "microbatches=4 would do nothing without stages; set mic"),
    ],
)
def test_what_cannot_be(sizes: dict[str, int], values: dict[str, Any], says: str) -> None:
    with pytest.raises(ShardingError, match=f"^{says}") as error:
        check(mesh(**sizes), MeshConfig(data=1, **values), 6, {"train.batch_size": 16})
    assert "\n" not in str(error.value)


def test_stages_have_layers_of_one_kind() -> None:
    with pytest.raises(ShardingError, match=r"pipeline=2: the first 2 of 6 layers .*first_dense"):
        check(mesh(pipeline=2), MeshConfig(), 6, {"a": 16}, others=2)
    check(mesh(data=2), MeshConfig(), 6, {"a": 16}, others=2)


def test_what_can_be() -> None:
    check(mesh(pipeline=2), MeshConfig(rounds=3, microbatches=4), 6, {"a": 16, "b": 4})
    check(mesh(data=8), MeshConfig(), 6, {"a": 3})
