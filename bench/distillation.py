"""A small student with a teacher and without, over the same text; and a teacher asked in each step.

    python -m bench distillation --model=FOLDER --work=FOLDER \
      --source="files:$PODIUM_ASSETS/books/*.jsonl.gz"

FOLDER of the model, the teacher, is one for `transformers`. The runs are those of
configs/distillation.py, each seed with other first parameters and the same text; what the teacher
says of it is computed once. Runs that are finished are kept: the same command goes on after an
interruption.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from bench import results
from bench.running import command, flags_of
from reporting.metrics import read_metrics

MODEL = flags.DEFINE_string("model", None, "Folder of the teacher.", required=True)
WORK = flags.DEFINE_string("work", None, "Folder for what comes of it.", required=True)
SOURCE = flags.DEFINE_string("source", None, "The text, as data.source.", required=True)
SEEDS = flags.DEFINE_integer("seeds", 3, "How many, with a teacher and without.")
LIVE = flags.DEFINE_integer(
    "live",
    20,
    "Steps in which the teacher is asked, to be compared: at most those of the warm-up, which are "
    "alike in runs of any length.",
    upper_bound=20,
)

OBJECTIVES = {"with a teacher": "distill", "without": "next_token"}


def trained(workdir: Path, config: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The metrics of a run."""
    done = workdir / "seconds.json"
    if not done.exists():
        if workdir.exists():
            print(f"{workdir.name} was interrupted: its seconds are those since", file=sys.stderr)
        arguments = ("--config=configs/distillation.py", f"--workdir={workdir}", *flags_of(config))
        _, seconds = command("train.py", *arguments)
        done.write_text(json.dumps(seconds))
    return [(step, dict(line)) for step, line in read_metrics(workdir)]


def main(argv: list[str]) -> None:
    del argv
    jax.config.update("jax_platforms", "cpu")
    work = Path(WORK.value).resolve()
    work.mkdir(parents=True, exist_ok=True)
    base = work / "teacher"
    if not base.exists():
        command("convert.py", "from-hf", MODEL.value, f"--workdir={base}")
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
            run = work / f"{objective}_{seed}"
            found = trained(run, common | {"objective.name": objective, "train.seed": seed})
            curves[name].append({s: one["eval/loss"] for s, one in found if "eval/loss" in one})
            seconds[run.name] = json.loads((run / "seconds.json").read_text())
            if seed == 0 and objective == "distill":
                stored = [one for _, one in found if "distill_loss" in one]
    # The warm-up is as long: rates are those of the whole run.
    live = {"objective.name": "distill", "objective.stored": False, "train.steps": LIVE.value}
    run = work / "live"
    asked = [one for _, one in trained(run, common | live) if "distill_loss" in one]
    seconds["live"] = json.loads((run / "seconds.json").read_text())

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
