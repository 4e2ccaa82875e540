"""Trains the same models in Podium and in PyTorch, step by step in turn.

    python -m bench step --torch_python=PYTHON

PyTorch is no dependency: --torch_python names an interpreter that has it. On a CPU, in float32, a
small model and GPT-2 124M, against PyTorch as it is and compiled; on a GPU, in bfloat16, GPT-2 124M
and a Llama of 1B, against compiled PyTorch. The limit is the rate of a large matrix product that is
measured in the same run.
"""

import os
import statistics
import sys
from typing import Any

import jax
from absl import app, flags

from bench import results
from bench.shape import SHAPES, Shape
from bench.side import Side

ROUNDS = flags.DEFINE_integer("rounds", 12, "Counted steps of each side.", lower_bound=1)
HARDWARE = flags.DEFINE_enum(
    "hardware", None, list(SHAPES), "Whose shapes; by default those of what is here."
)
NAMES = flags.DEFINE_list("shapes", [], "Which of them; all by default.")
TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "A Python interpreter that has PyTorch."
)

_WARM_UP = 3
_NO_TORCH = (
    "PyTorch did not start: install it (pip install torch) into an environment of its own and "
    "give --torch_python=THAT/bin/python. Podium is measured alone."
)


def measure(hardware: str, name: str, shape: Shape) -> dict[str, Any]:
    """One shape, all sides in turn."""
    modes = ("compiled",) if hardware == "gpu" else ("eager", "compiled")
    sides = {"podium": Side(sys.executable, "bench.podium_side", hardware, name)}
    if not sides["podium"].about:
        sys.exit("error: Podium's side of the bench did not start: see above")
    for mode in modes:
        rival = Side(TORCH_PYTHON.value, "bench.torch_side", hardware, name, mode)
        if rival.about:
            sides[f"torch {mode}"] = rival
    if len(sides) == 1:
        print(_NO_TORCH, file=sys.stderr)
    records: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for index in range(_WARM_UP + ROUNDS.value):
        for side, process in sides.items():
            record = process.step()
            if record and index >= _WARM_UP:
                records[side].append(record)
    for process in sides.values():
        process.close()
    whole = {side: steps for side, steps in records.items() if len(steps) == ROUNDS.value}
    for side in sorted(set(records) - set(whole)):
        print(f"{side} ended before its last step: it is left out", file=sys.stderr)
    if "podium" not in whole:
        sys.exit("error: Podium's side of the bench ended before its last step: see above")
    records = whole

    tokens = shape.rows * shape.length
    rate = sides["podium"].about["matmul_flops_per_s"]
    flops = shape.config().flops_per_token(shape.length) * tokens
    found: dict[str, Any] = {
        "shape": shape._asdict(),
        "config_hash": shape.hash(),
        "flops_a_step": flops,
        "matmul_size": shape.matmul_size(),
        "sides": {},
    }
    print(f"{name}: {shape.rows} x {shape.length} tokens a step, {shape.dtype}")
    for side, steps in records.items():
        seconds = statistics.median(r["s"] for r in steps)
        one = {"step_s": seconds, "tokens_per_s": tokens / seconds, **sides[side].about}
        one |= {"of_matmul": flops / seconds / rate, "last_loss": steps[-1]["loss"]}
        found["sides"][side] = one
        print(
            f"  {side:14} {seconds:8.3f} s a step  {tokens / seconds:10,.0f} tokens/s  "
            f"{one['of_matmul']:6.1%} of the matrix product  last loss {steps[-1]['loss']:.3f}"
        )
    ours = records.pop("podium")
    for side, theirs in records.items():
        ratios = [t["s"] / p["s"] for p, t in zip(ours, theirs, strict=True)]
        spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
        found["sides"][side]["podium_is_faster_by"] = spread
        print(
            f"  Podium is {spread['median']:.2f} x {side} (median of {len(ratios)} pairs, "
            f"{spread['min']:.2f} to {spread['max']:.2f})"
        )
    found["data_wait_share"] = sum(r["wait_s"] for r in ours) / sum(r["s"] for r in ours)
    print(f"  waiting for data: {found['data_wait_share']:.2%} of Podium's step", flush=True)
    return found


def main(argv: list[str]) -> None:
    del argv
    # Of a GPU's memory each process takes what it needs, this one nearly nothing.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    here = jax.default_backend()
    hardware = HARDWARE.value or ("gpu" if here == "gpu" else "cpu")
    if hardware in ("cpu", "gpu") and hardware != here:
        sys.exit(f"error: --hardware={hardware}: JAX runs on {here} here")
    shapes = SHAPES[hardware]
    if unknown := sorted(set(NAMES.value) - set(shapes)):
        sys.exit(f"error: --shapes={unknown[0]}: {hardware} has {', '.join(shapes)}")
    found = {name: measure(hardware, name, shapes[name]) for name in NAMES.value or list(shapes)}
    results.write({"hardware": hardware, "flops": results.FLOPS, "shapes": found})


if __name__ == "__main__":
    app.run(main)
