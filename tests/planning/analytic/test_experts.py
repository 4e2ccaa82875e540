"""What mixtures of experts add to a plan, against numbers worked out by hand: Mixtral 8x7B."""

import dataclasses
from typing import Any

import pytest

from model.moe_config import MoeConfig
from planning.analytic import exchanges, layout, memory, work
from planning.topology import parse
from tests.planning.runs import LLAMA, run_of

LAYERS, TOKENS = 32, 2 * 4096
ATTENTION, EXPERT = 41_943_040, 176_160_768
"""Weights of a layer: 4,096 x 128 x 2 x (32 + 8), and 3 x 4,096 x 14,336 of each expert."""
MIXTRAL = dataclasses.replace(
    LLAMA, vocab_size=32000, max_length=4096, moe=MoeConfig(8, 2, expert_mlp_dim=14336)
)


def laid(**mesh: Any) -> layout.Layout:
    """Two rows on each of 256 chips."""
    return layout.of(run_of(MIXTRAL, 512, 4096, **mesh), parse("v5p:4x8x8", 1))


def flops(of: layout.Layout, **like: str) -> float:
    lines = work.work(of)
    return sum(x.flops for x in lines if all(getattr(x, k) == v for k, v in like.items()))


@pytest.mark.parametrize("expert", [1, 8])
def test_a_token_is_multiplied_with_two_experts(expert: int) -> None:
    of = laid(expert=expert)
    products = "products with weights"
    each = TOKENS * LAYERS * (ATTENTION + 2 * EXPERT)
    assert flops(of, name=products, phase="forward") == 2 * each
    assert flops(of, name=products, phase="backward") == 4 * each
    model = work.model_flops(of) / TOKENS
    assert model == MIXTRAL.flops_per_token(4096)
    router = 3 * 2 * TOKENS * LAYERS * 4096 * 8
    assert flops(of, name="routing, and rows to experts and back") == router


def test_hidden_activations_of_what_travelled_are_computed_again() -> None:
    """Whatever is kept; where nothing travels, nothing is where remat keeps all."""
    kept = dataclasses.replace(MIXTRAL, remat="save_dots")
    for expert, times in ((1, 0), (8, 2 / 3)):
        of = layout.of(run_of(kept, 512, 4096, expert=expert), parse("v5p:4x8x8", 1))
        again = 2 * TOKENS * LAYERS * 2 * EXPERT * times
        assert flops(of, phase="recomputed") == pytest.approx(again)


def test_exchanges() -> None:
    """Of rows of 8,192 bytes, two a token; and of weights, where experts are on 32 devices."""
    lines = [x for x in exchanges.exchanges(laid(expert=8)) if x.name == "rows"]
    assert {x.axes for x in lines} == {("expert",)}
    assert sum(x.times for x in lines) == 5 * LAYERS
    assert {x.whole for x in lines} == {TOKENS * 2 * 4096 * 2}
    assert not [x for x in exchanges.exchanges(laid(expert=1)) if x.name == "rows"]

    def gathered(expert: int) -> dict[tuple[str, ...], float]:
        lines = exchanges.exchanges(laid(expert=expert))
        return {x.axes: x.whole for x in lines if (x.name, x.phase) == ("weights", "forward")}

    # All that is no norm: the router too.
    router = 4096 * 8
    assert gathered(1) == {("fsdp",): 2 * (ATTENTION + router + 8 * EXPERT)}
    assert gathered(8) == {("fsdp", "expert"): 2 * (ATTENTION + router), ("fsdp",): 2 * EXPERT}


def test_memory() -> None:
    def held(expert: int) -> dict[str, int]:
        return {line.name: line.bytes for line in memory.held(laid(expert=expert))}

    rows = TOKENS * 2
    assert held(1)["rows for experts"] == 4 * 2 * rows * 4096
    assert held(8)["rows for experts"] == 4 * 2 * rows * 4096 * 1.5
    assert held(8)["room for more rows"] == pytest.approx(5 * 2 * rows * 14336 * 0.5)
    assert held(8)["gradients of experts, summed"] == 4 * EXPERT
    assert "room for more rows" not in held(1)
