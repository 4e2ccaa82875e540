"""Draws tokens with SmolLM2-135M's shape in Podium and in `transformers`, run by run in turn.

    python -m bench decode --torch_python=PYTHON

Greedy, on this machine's processor, in float32 and in bfloat16, one text and eight at a time. The
rate is of the tokens after the first, so feeding the prompt does not count; the time to the first
one is told too. `transformers` is no dependency: --torch_python names an interpreter that has it.
"""

import statistics
import sys
from typing import Any

from absl import app, flags

from bench import decode_shape as shape
from bench import results
from bench.side import Side

ROUNDS = flags.DEFINE_integer("rounds", 7, "Counted runs of each side.", lower_bound=1)
DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "Of weights, on both sides.")
BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Texts at a time.")
TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "A Python interpreter that has PyTorch and transformers."
)

_WARM_UP = 1


def measure(dtype: str, batch: int) -> dict[str, Any]:
    """One setting, both sides in turn."""
    sides = {
        "podium": Side(sys.executable, "bench.podium_decode", dtype, str(batch)),
        "transformers": Side(TORCH_PYTHON.value, "bench.torch_decode", dtype, str(batch)),
    }
    if not sides["podium"].about:
        sys.exit("error: Podium's side of the bench did not start: see above")
    if not sides["transformers"].about:
        print(
            "transformers did not start: install it and PyTorch (pip install torch transformers) "
            "into an environment of its own and give --torch_python=THAT/bin/python. Podium is "
            "measured alone.",
            file=sys.stderr,
        )
        del sides["transformers"]
    records: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for index in range(_WARM_UP + ROUNDS.value):
        for side, process in sides.items():
            record = process.step()
            if not record:
                sys.exit(f"error: {side} ended before its last run: see above")
            if index >= _WARM_UP:
                records[side].append(record)
    for process in sides.values():
        process.close()

    found: dict[str, Any] = {"dtype": dtype, "batch": batch, "sides": {}}
    print(
        f"{dtype}, {batch} at a time, {shape.PROMPT} tokens each, and {shape.NEW} after the first"
    )
    for side, runs in records.items():
        rates = [batch * shape.NEW / run["s"] for run in runs]
        first = statistics.median(run["first_s"] for run in runs)
        one = {"tokens_per_s": statistics.median(rates), "first_s": first, **sides[side].about}
        found["sides"][side] = one
        print(f"  {side:14} {one['tokens_per_s']:8.1f} tokens/s, the first after {first:.3f} s")
    if "transformers" in records:
        pairs = zip(records["podium"], records["transformers"], strict=True)
        ratios = [theirs["s"] / ours["s"] for ours, theirs in pairs]
        spread = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
        found["podium_is_faster_by"] = spread
        print(
            f"  Podium is {spread['median']:.2f} x transformers (median of {len(ratios)} pairs, "
            f"{spread['min']:.2f} to {spread['max']:.2f})",
            flush=True,
        )
    return found


def main(argv: list[str]) -> None:
    del argv
    found = [measure(dtype, int(batch)) for dtype in DTYPES.value for batch in BATCHES.value]
    about = {key: value for key, value in vars(shape).items() if key.isupper()}
    results.write({"shape": about, "runs": found})


if __name__ == "__main__":
    app.run(main)
