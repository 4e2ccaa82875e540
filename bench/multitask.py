"""Seventeen tasks, before training, after training on all of them, and on each alone.

    python -m bench multitask --model=FOLDER --work=FOLDER \
      --source="files:$PODIUM_ASSETS/tasks/multitask/*.jsonl.gz"

FOLDER of the model is one for `transformers`. The runs are those of configs/multitask.py; every
model is judged by all examples of the validation split, each task by its own metric. What is
finished is kept: the same command goes on after an interruption.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from bench import results
from bench.running import command, flags_of
from configs.multitask import TASKS
from data import tasks
from evaluation.metrics import METRICS

MODEL = flags.DEFINE_string("model", None, "Folder of the model.", required=True)
WORK = flags.DEFINE_string("work", None, "Folder for what comes of it.", required=True)
SOURCE = flags.DEFINE_string("source", None, "The tasks, as data.source.", required=True)
AT_ONCE = flags.DEFINE_integer("batch_size", 16, "Examples at a time, when they are judged.")


def kept(path: Path, make: Any) -> dict[str, Any]:
    """What is in a file of JSON, made if it is not there."""
    if not path.exists():
        text = json.dumps(make())
        path.with_suffix(".partial").write_text(text)
        path.with_suffix(".partial").replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


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

    return kept(workdir.parent / f"{workdir.name}.json", judge)


def trained(workdir: Path, form: str, base: Path) -> float:
    """Trains, and says how long that took."""
    changed = {
        "train.start_from": base,
        "data.source": SOURCE.value,
        "evaluation.every": 0,
        "evaluation.max_tokens": 1,
        "report.max_tokens": 1,
    }
    config = "configs/multitask.py" + (f":{form}" if form else "")

    def train() -> dict[str, float]:
        resumed = workdir.exists()
        arguments = ("train.py", f"--config={config}", f"--workdir={workdir}", *flags_of(changed))
        return {"seconds": command(*arguments)[1], "resumed": resumed}

    found = kept(workdir.parent / f"{workdir.name}.trained.json", train)
    if found["resumed"]:
        print(f"{workdir.name} was interrupted: its seconds are those since", file=sys.stderr)
    seconds: float = found["seconds"]
    return seconds


def main(argv: list[str]) -> None:
    del argv
    jax.config.update("jax_platforms", "cpu")
    work = Path(WORK.value).resolve()
    work.mkdir(parents=True, exist_ok=True)
    base, mixed, names = work / "base", work / "mixed", list(TASKS)
    if not base.exists():
        command("convert.py", "from-hf", MODEL.value, f"--workdir={base}")
    before = judged(base, names)
    spent = {"before": before["seconds"], "training on all": trained(mixed, "", base)}
    after = judged(mixed, names)
    spent |= {"after": after["seconds"], "training on each": 0.0, "each": 0.0}
    alone: dict[str, Any] = {}
    for name in names:
        spent["training on each"] += trained(work / name, name, base)
        one = judged(work / name, [name])
        spent["each"] += one["seconds"]
        alone |= one["tasks"]

    rows = []
    for name in names:
        metric = METRICS[tasks.find(f"multitask:{name}").metrics[0]].names[0]
        row: dict[str, Any] = {"task": name, "metric": metric}
        row["examples"] = before["tasks"][name]["examples"]
        for when, found in (
            ("before", before["tasks"]),
            ("mixed", after["tasks"]),
            ("alone", alone),
        ):
            row[when] = [found[name][metric], *found[name][f"{metric}_95"]]
        rows.append(row)
        cells = "  ".join("{:5.1f} ({:.1f} to {:.1f})".format(*row[w]) for w in WHEN)
        print(f"{name:22} {metric:12} {row['examples']:3}  {cells}", flush=True)
    means = {when: sum(row[when][0] for row in rows) / len(rows) for when in WHEN}
    print("mean", "  ".join(f"{when} {value:.1f}" for when, value in means.items()))
    print("seconds", json.dumps({what: round(value) for what, value in spent.items()}))
    results.write({"rows": rows, "means": means, "seconds": spent})


WHEN = ("before", "mixed", "alone")

if __name__ == "__main__":
    app.run(main)
