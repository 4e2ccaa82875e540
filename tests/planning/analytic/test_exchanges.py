"""What devices exchange, against numbers worked out by hand and what is compiled."""

import math
import re
from collections import Counter

import pytest

from planning.analytic import layout
from planning.analytic.exchanges import exchanges, links_of
from planning.topology import parse
from tests.planning.runs import SMALL, compiled, llama, run_of

BLOCK = 41_943_040 + 176_160_768
"""Weights of a block of Llama 3 8B (see test_work.py)."""


def lines_of(laid, **like):
    return [
        line
        for line in exchanges(laid)
        if all(getattr(line, key) == value for key, value in like.items())
    ]


def test_fsdp_by_hand():
    """Each block's weights in bfloat16: gathered twice, their gradients scattered once."""
    laid = llama("v5e:16x16", 256)
    blocks = [
        line for line in exchanges(laid) if "weights" in line.name or line.name == "gradients"
    ]
    assert [(line.kind, line.whole, line.times) for line in blocks] == [
        ("all-gather", 2 * BLOCK, 32),
        ("all-gather", 2 * BLOCK, 32),
        ("reduce-scatter", 2 * BLOCK, 32),
    ]
    (over,) = {links_of(laid, blocks)[line.axes] for line in blocks}
    received = sum(line.received(over) for line in blocks)
    assert received == pytest.approx(3 * 32 * 2 * BLOCK * 255 / 256)
    # Two rings of v5e, 180 GB/s: a quarter of a second.
    time = sum(line.seconds(over) for line in blocks)
    assert time == pytest.approx(received / 180e9) == pytest.approx(0.2317, abs=1e-4)


def test_every_microbatch_gathers_again():
    laid = llama("v5e:16x16", 1024, accumulation=4)
    assert {line.times for line in lines_of(laid, name="weights")} == {4 * 32}
    assert {line.times for line in lines_of(laid, name="table")} == {4}


def test_tensor_by_hand():
    """A row of 8,192 x 4,096 in bfloat16: forward before and after each half of a block, backward
    alike, and all but the last where the forward pass is computed again."""
    laid = llama("v5e:16x16", 32, tensor=8)
    stream = lines_of(laid, name="activations")
    assert {line.whole for line in stream} == {8192 * 4096 * 2}
    assert {(line.axes, line.times) for line in stream} == {(("tensor",), 32)}
    kinds = [(line.phase, line.kind) for line in stream]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        ("forward", "all-gather"): 2,
        ("forward", "reduce-scatter"): 2,
        ("recomputed", "all-gather"): 2,
        ("recomputed", "reduce-scatter"): 1,
        ("backward", "all-gather"): 2,
        ("backward", "reduce-scatter"): 2,
    }
    # Weights are an eighth of theirs.
    assert {line.whole for line in lines_of(laid, name="weights")} == {2 * BLOCK / 8}


def test_data_by_hand():
    """Copies add up their shards' gradients, after those are scattered."""
    laid = llama("v6e:16x16", 1024, 4, data=4)
    (summed,) = lines_of(laid, name="gradients", kind="all-reduce")
    assert (summed.axes, summed.whole) == (("data",), 2 * BLOCK / 256)
    (table,) = lines_of(laid, name="unembedding's gradient")
    assert (table.axes, table.whole) == (("data",), 4 * 128256 * 4096 / 256)


def test_a_ring_by_hand():
    """A row over eight chips: keys and values of 4,096 tokens, 8 heads of 128, seven steps each
    way and once more where the forward pass is computed again; their gradients in float32, eight.
    """
    laid = llama("v5e:4x4", 2, context=8, fsdp=2)
    there, back = (lines_of(laid, name=name) for name in ("keys and values", "their gradients"))
    of_chip = 2 * 1024 * 8 * 128
    assert {(line.kind, line.axes) for line in there + back} == {
        ("collective-permute", ("context",))
    }
    assert {line.phase: (line.whole, line.times) for line in there} == {
        "forward": (2 * of_chip, 32 * 7),
        "recomputed": (2 * of_chip, 32 * 7),
        "backward": (2 * of_chip, 32 * 7),
    }
    assert [(line.whole, line.times) for line in back] == [(4 * of_chip, 32 * 8)]
    (over,) = {links_of(laid, there)[line.axes] for line in there}
    # One link of v5e in one direction: 45 GB/s.
    assert there[0].seconds(over) == pytest.approx(32 * 7 * 2 * of_chip / 45e9)
    kept = llama("v5e:4x4", 2, context=8, fsdp=2, kinds={"remat": "save_attention"})
    assert {line.phase for line in lines_of(kept, name="keys and values")} == {
        "forward",
        "backward",
    }


def test_keys_gathered_by_hand():
    """A window needs them: see sharding/attention.py. Of `tensor` each chip has its own heads."""
    laid = llama("v5e:4x4", 1, context=4, tensor=4, kinds={"sliding_window": 1024})
    there, back = (lines_of(laid, name=name) for name in ("keys and values", "their gradients"))
    row = 2 * 8192 * 2 * 128
    assert [(line.phase, line.kind, line.whole) for line in there] == [
        ("forward", "all-gather", 2 * row),
        ("backward", "all-gather", 2 * row),
    ]
    assert [(line.kind, line.whole) for line in back] == [("reduce-scatter", 2 * row)]
    # More chips along `tensor` than there are heads: one for each two query heads.
    wide = llama("v5e:4x8", 1, context=2, tensor=16, kinds={"sliding_window": 1024})
    assert {line.whole for line in lines_of(wide, name="keys and values")} == {2 * row // 2}


def test_stages_by_hand():
    """Four stages, each of 16 rows of 8,192 x 4,096 in bfloat16, handed on one at a time; weights
    are gathered along the other four chips, for each of 19 iterations, of eight layers."""
    laid = llama("v5e:4x4", 64, pipeline=4)
    row = 8192 * 4096 * 2
    handed = lines_of(laid, name="from stage to stage")
    assert [(line.kind, line.axes, line.whole, line.times) for line in handed] == [
        ("collective-permute", ("pipeline",), row, 19)
    ] * 2
    assert {line.times for line in lines_of(laid, name="weights")} == {19 * 8}
    assert {line.axes for line in lines_of(laid, name="weights")} == {("fsdp",)}
    outside = [line for line in exchanges(laid) if line.axes == ("pipeline",) and line.times < 19]
    assert {(line.name, line.kind, line.whole, line.times) for line in outside} == {
        ("into stages", "all-reduce", 16 * row, 2),
        ("out of stages", "reduce-scatter", 16 * row, 1),
        ("out of stages", "all-gather", 16 * row, 1),
        ("features", "all-gather", 16 * row, 1),
        ("gradient of features", "reduce-scatter", 16 * row, 1),
    }


def test_one_device_exchanges_nothing():
    assert exchanges(layout.of(run_of(SMALL, 4, 32), parse("v5e:1x1"))) == ()


def test_a_length_that_tensor_does_not_divide_is_summed_whole():
    laid = layout.of(run_of(SMALL, 4, 30, fsdp=2, tensor=4), parse("cpu:8"))
    stream = lines_of(laid, name="activations", phase="forward")
    assert [line.kind for line in stream] == ["all-reduce", "all-reduce"]


def test_muon_by_hand():
    laid = llama("v5e:16x16", 256, optimizer="muon")
    assert [line.whole for line in lines_of(laid, phase="update")] == [2 * 32 * BLOCK / 256] * 2


_FOUND = re.compile(r" = \(?(.*?)\)? (all-gather|all-reduce|reduce-scatter)(?:-start)?\(")


def test_a_compiled_step_exchanges_the_same():
    """data=2 x fsdp=2 x tensor=2 on simulated devices: what the loops over layers gather and sum.

    On a CPU a reduce-scatter is an all-reduce of which a part is taken, and the gradients that come
    from queries, keys and values, or from gate and up, are summed over devices one by one, not
    (as on TPUs) together.
    """
    run, program = compiled("full", 1, (2, 2, 2))
    laid = layout.of(run, parse("cpu:8"))
    width, tokens = run.model.embed_dim, laid.rows * laid.length
    stream, weights = lines_of(laid, name="activations"), 0
    found: Counter[tuple[str, str]] = Counter()
    for line in program.as_text().splitlines():
        match = _FOUND.search(line)
        if match is None or "/while/body/" not in line or "shard_map" in line:
            continue
        backward = "recomputed" if "rematted_computation" in line else "backward"
        phase = backward if "transpose(" in line else "forward"
        for dims in re.findall(r"f32\[([\d,]+)\]", match[1]):
            size = math.prod(int(n) for n in dims.split(","))
            if size == tokens * width:
                found[phase, match[2]] += 1
            elif match[2] == "all-gather":
                weights += size
    for phase, apart in (("forward", 0), ("recomputed", 0), ("backward", (3 - 1) + (2 - 1))):
        kinds = [line.kind for line in stream if line.phase == phase]
        assert found[phase, "all-gather"] == kinds.count("all-gather"), phase
        assert found[phase, "all-reduce"] == kinds.count("reduce-scatter") + apart, phase
    of_blocks = [line for line in exchanges(laid) if line.name.startswith("weights")]
    assert 4 * weights == sum(line.whole for line in of_blocks)
