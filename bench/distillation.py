"""A small student with a teacher and without, over the same text; and a teacher asked in each step.

    python -m bench distillation --model=FOLDER --work=FOLDER \
      --source="files:$PODIUM_ASSETS/books/*.jsonl.gz"

FOLDER of the model, the teacher, is one for `transformers`. The runs are those of
configs/distillation.py, each seed with other first parameters and the same text; what the teacher
says of it is computed once. Runs that are finished are kept: the same command goes on after an
interruption.
"""

import statistics
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from bench import results, running
from bench.running import SOURCE, converted, trained, work
from reporting.metrics import read_metrics

flags.adopt_module_key_flags(running)  # --help shows them, too
SEEDS = flags.DEFINE_integer("seeds", 3, "How many, with a teacher and without.")
LIVE = flags.DEFINE_integer(
    "live",
    20,
    "Steps in which the teacher is asked, to be compared: at most those of the warm-up, which are "
    "alike in runs of any length.",
    upper_bound=20,
)

OBJECTIVES = {"with a teacher": "distill", "without": "next_token"}


def learned(
    workdir: Path, changed: dict[str, Any], seconds: dict[str, float]
) -> list[tuple[int, dict[str, Any]]]:
    """The metrics of a run, whose seconds are noted."""
    seconds[workdir.name] = trained(workdir, "distillation.py", changed)
    return [(step, dict(line)) for step, line in read_metrics(workdir)]


def main(argv: list[str]) -> None:
    del argv
    jax.config.update("jax_platforms", "cpu")
    folder, base = work(), converted()
    common = {
        "objective.teacher": base,
        "data.tokenizer": base / "tokenizer.json",
        "data.source": SOURCE.value,
        "report.max_tokens": 1,
    }
    curves: dict[str, list[dict[int, float]]] = {name: [] for name in OBJECTIVES}
    seconds: dict[str, float] = {}
    stored: list[dict[str, Any]] = []
    for seed in range(SEEDS.value):
        for name, objective in OBJECTIVES.items():
            changed = common | {"objective.name": objective, "train.seed": seed}
            found = learned(folder / f"{objective}_{seed}", changed, seconds)
            curves[name].append({s: one["eval/loss"] for s, one in found if "eval/loss" in one})
            if seed == 0 and objective == "distill":
                stored = [one for _, one in found if "distill_loss" in one]
    # The warm-up is as long: rates are those of the whole run.
    live = {"objective.name": "distill", "objective.stored": False, "train.steps": LIVE.value}
    found = learned(folder / "live", common | live, seconds)
    asked = [one for _, one in found if "distill_loss" in one]

    steps = list(curves["without"][0])
    for name, of_seeds in curves.items():
        print(f"held-out loss {name}, {SEEDS.value} seeds")
        for step in steps:
            values = [curve[step] for curve in of_seeds]
            each = "  ".join(f"{value:.4f}" for value in values)
            print(f"  step {step:4}  mean {statistics.mean(values):.4f}  of {each}")
    beside = [
        {f"{which} {name}": line[name] for name in ("loss", "distill_loss") for which, line in both}
        for both in ((("live", a), ("stored", b)) for a, b in zip(asked, stored, strict=False))
    ]
    for number, line in enumerate(beside, 1):
        print(f"step {number:2}  " + "  ".join(f"{key} {value:.5f}" for key, value in line.items()))
    results.write({"held_out": curves, "first_steps": beside, "seconds": seconds})


if __name__ == "__main__":
    app.run(main)
