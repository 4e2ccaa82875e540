"""What a step takes where the model stays and adapters move, by hand."""

import dataclasses

from planning.analytic import exchanges, layout, memory, work
from planning.topology import parse
from tests.planning.runs import LLAMA, run_of
from training.tuning import TuningConfig


def laid(tuning: TuningConfig) -> layout.Layout:
    run = run_of(dataclasses.replace(LLAMA, adapter=tuning.adapter(LLAMA)), 256, 8192)
    return layout.of(dataclasses.replace(run, tuning=tuning), parse("v5e:16x16"))


EVERY, LORA = laid(TuningConfig()), laid(TuningConfig("lora", rank=8, targets=("query", "down")))
# Of each layer: 4,096 x 8 and 8 x (32 x 128); 14,336 x 8 and 8 x 4,096. What has `embed` is split.
SPLIT, WHOLE = 32 * 2 * 4096 * 8, 32 * (8 * 4096 + 14336 * 8)


def test_memory():
    every, lora = ({line.name: line.bytes for line in memory.held(one)} for one in (EVERY, LORA))
    scales = 65 * 4096
    stays = 2 * ((8_030_261_248 - scales) // 256) + 4 * scales
    assert lora["parameters that stay"] == stays
    moves = 4 * (SPLIT // 256 + WHOLE)
    assert lora["parameters"] == lora["gradients"] == moves
    assert lora["optimizer state"] == 2 * moves + 8
    assert lora["cast, of all blocks"] == moves // 2
    assert "parameters that stay" not in every
    assert "gradient of the table" in every and "gradient of the table" not in lora


def test_work():
    def products(one: layout.Layout, phase: str, name: str) -> float:
        return sum(
            line.flops for line in work.work(one) if (line.phase, line.name) == (phase, name)
        )

    weights = "products with weights"
    forward = products(EVERY, work.FORWARD, weights)
    assert products(LORA, work.FORWARD, weights) == forward
    assert products(EVERY, work.BACKWARD, weights) == 2 * forward
    assert products(LORA, work.BACKWARD, weights) == forward
    beside = 2 * 8192 * (SPLIT + WHOLE)  # a row of 8,192 tokens on each chip
    assert products(LORA, work.FORWARD, "adapters") == beside
    assert products(LORA, work.BACKWARD, "adapters") == 2 * beside
    head = "logits, loss and gradients"
    assert products(LORA, work.HEAD, head) * 3 == products(EVERY, work.HEAD, head) * 2


def test_exchanges():
    def scattered(one: layout.Layout) -> float:
        lines = exchanges.exchanges(one)
        return sum(line.whole * line.times for line in lines if line.kind == "reduce-scatter")

    assert scattered(LORA) == 2 * SPLIT  # those of adapters, in bfloat16
    assert scattered(EVERY) > 100 * scattered(LORA)
    gathered = [
        sum(x.whole for x in exchanges.exchanges(one) if x.name == "weights")
        for one in (EVERY, LORA)
    ]
    assert gathered[1] == gathered[0] + 2 * SPLIT / 32
