"""Seventeen tasks, before training, after training on all of them, and on each alone.

    python -m bench multitask --model=FOLDER --work=FOLDER \
      --source="files:$PODIUM_ASSETS/tasks/multitask/*.jsonl.gz"

FOLDER of the model is one for `transformers`. The runs are those of configs/multitask.py; every
model is judged by all examples of the validation split, each task by its own metric. What is
finished is kept: the same command goes on after an interruption.
"""

import json
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from bench import results, running
from bench.running import SOURCE, command, converted, kept, trained, work
from configs.multitask import TASKS
from data import tasks
from evaluation.metrics import METRICS

flags.adopt_module_key_flags(running)  # --help shows them, too
AT_ONCE = flags.DEFINE_integer("batch_size", 16, "Examples at a time, when they are judged.")

_WHEN = ("before", "mixed", "alone")


def judged(workdir: Path, names: list[str]) -> dict[str, Any]:
    """What eval.py says of tasks, by their names, and the seconds that it took."""

    def judge() -> dict[str, Any]:
        printed, seconds = command(
            "eval.py",
            f"--workdir={workdir}",
            f"--source={SOURCE.value}",
            "--split=val.jsonl.gz",
            f"--batch_size={AT_ONCE.value}",
            *(f"--task=multitask:{name}" for name in names),
        )
        lines = [json.loads(line) for line in printed.splitlines()]
        found = {line["task"].partition(":")[2]: line for line in lines if "task" in line}
        return {"tasks": found, "seconds": seconds}

    return kept(workdir.with_name(f"{workdir.name}.json"), judge)


def main(argv: list[str]) -> None:
    del argv
    jax.config.update("jax_platforms", "cpu")
    folder, base, names = work(), converted(), list(TASKS)
    mixed = folder / "mixed"
    changed = {
        "train.start_from": base,
        "data.source": SOURCE.value,
        "evaluation.every": 0,
        "evaluation.max_tokens": 1,
        "report.max_tokens": 1,
    }
    before = judged(base, names)
    spent = {"before": before["seconds"]}
    spent["training on all"] = trained(mixed, "multitask.py", changed)
    after = judged(mixed, names)
    spent |= {"after": after["seconds"], "training on each": 0.0, "each": 0.0}
    alone: dict[str, Any] = {}
    for name in names:
        spent["training on each"] += trained(folder / name, f"multitask.py:{name}", changed)
        one = judged(folder / name, [name])
        spent["each"] += one["seconds"]
        alone |= one["tasks"]

    rows = []
    for name in names:
        metric = METRICS[tasks.find(f"multitask:{name}").metrics[0]].names[0]
        row: dict[str, Any] = {"task": name, "metric": metric}
        row["examples"] = before["tasks"][name]["examples"]
        for when, found in zip(_WHEN, (before["tasks"], after["tasks"], alone), strict=True):
            row[when] = [found[name][metric], *found[name][f"{metric}_95"]]
        rows.append(row)
        cells = "  ".join("{:5.1f} ({:.1f} to {:.1f})".format(*row[w]) for w in _WHEN)
        print(f"{name:22} {metric:12} {row['examples']:3}  {cells}", flush=True)
    means = {when: sum(row[when][0] for row in rows) / len(rows) for when in _WHEN}
    print("mean", "  ".join(f"{when} {value:.1f}" for when, value in means.items()))
    print("seconds", json.dumps({what: round(value) for what, value in spent.items()}))
    results.write({"rows": rows, "means": means, "seconds": spent})


if __name__ == "__main__":
    app.run(main)
