"""Learns CLINC150's intents by LoRA in Podium and in `transformers` with `peft`, and judges both.

    python -m bench intents --torch_python=PYTHON --model=FOLDER --work=FOLDER \
      --source="files:$PODIUM_ASSETS/tasks/clinc150/*.jsonl.gz"

FOLDER of the model is one for `transformers`. On this machine's processor, in float32. Both sides
learn from the same examples, of the same tokens, with the same optimizer, rates and adapters, and
as many of them a step; they are judged by the same cases, by the likelihood of the same labels.
Podium packs examples into rows, the other side pads them; their orders differ, and so do the first
values of adapters. Each phase is timed apart: Podium's are what eval.py says, and the steps that
train.py measures. --steps=0 only judges. `peft` is no dependency: --torch_python names an
interpreter that has it, PyTorch and transformers; without it Podium is measured alone.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from bench import results, running
from bench.running import MODEL, SOURCE, command, converted, flags_of, work
from checkpointing.workdir import TOKENIZER
from data import tasks
from data import tokenizer as tokenizers
from data.config import DataConfig
from data.preparation import prepare
from evaluation import intervals
from evaluation.tasks.cases import Case, Reading, read
from evaluation.tasks.likelihood import choose
from evaluation.tasks.trie import plant
from reporting.metrics import read_metrics
from training.config import OptimizerConfig
from training.schedule import learning_rate

flags.adopt_module_key_flags(running)  # --help shows them, too
TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "A Python interpreter that has PyTorch, transformers and peft."
)
LIMIT = flags.DEFINE_integer("limit", 20, "Examples of each label to learn from; 0 is all.")
EXAMPLES = flags.DEFINE_integer("examples", 500, "Cases to be judged by.")
EPOCHS = flags.DEFINE_float("epochs", 3.0, "How often each example is learned from.")
STEPS = flags.DEFINE_integer("steps", None, "Instead of --epochs; 0 only judges.")
LENGTH = flags.DEFINE_integer("sequence_length", 256, "Tokens of a row.")
ROWS = flags.DEFINE_integer("batch_size", 4, "Rows a step.")
PROMPTS = flags.DEFINE_integer("prompts", 16, "Prompts at a time, when Podium judges.")
RATE = flags.DEFINE_float("learning_rate", 1e-3, "Its peak.")
WARMUP = flags.DEFINE_integer("warmup_steps", 10, "Steps to the peak.")
RANK = flags.DEFINE_integer("rank", 16, "Of adapters.")
ALPHA = flags.DEFINE_float("alpha", 32.0, "What adapters give is multiplied by alpha / rank.")
TARGETS = flags.DEFINE_list(
    "targets", ["query", "key", "value", "out", "gate", "up", "down"], "What has adapters."
)

_TASK = "clinc150"


def judged(workdir: Path) -> dict[str, Any]:
    """What eval.py says of a model."""
    answers = workdir.parent / f"{workdir.name}.jsonl"
    printed, _ = command(
        "eval.py",
        f"--workdir={workdir}",
        f"--task={_TASK}",
        f"--source={SOURCE.value}",
        f"--examples={EXAMPLES.value}",
        f"--batch_size={PROMPTS.value}",
        f"--out={answers}",
    )
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    found["logprobs"] = [json.loads(line)["logprob"] for line in answers.read_text().splitlines()]
    return found


def podium(folder: Path, base: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Podium's side."""
    found = {"before": judged(base)}
    if config["train.steps"]:
        run = folder / "podium"
        _, seconds = command(
            "train.py", "--config=configs/continued.py", f"--workdir={run}", *flags_of(config)
        )
        lines = [line for _, line in read_metrics(run) if "time/step_s" in line]
        steps = [line["time/step_s"] for line in lines]
        losses = [line["loss"] for line in lines]
        found["training"] = {"seconds": sum(steps), "command_seconds": seconds, "losses": losses}
        found["after"] = judged(run)
    return found


def torch(folder: Path, cases: list[Case], lengths: np.ndarray) -> dict[str, Any]:
    """The side of `transformers` and `peft`; nothing if it does not start."""
    arguments = [TORCH_PYTHON.value, "-m", "bench.torch_intents", str(folder / "intents.json")]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print("transformers and peft did not do it: Podium is measured alone", file=sys.stderr)
        return {}
    about, *phases = map(json.loads, done.stdout.splitlines())
    found = {"about": about}
    for phase in phases:
        name = phase.pop("phase")
        if likelihoods := phase.pop("likelihoods", None):
            phase |= measured(np.array(likelihoods), cases, lengths)
        found[name] = phase
    return found


def measured(sums: np.ndarray, cases: list[Case], lengths: np.ndarray) -> dict[str, Any]:
    """Accuracies by log-likelihoods [cases, labels], as eval.py has them."""
    found: dict[str, Any] = {}
    for name, scores in (("accuracy", sums), ("accuracy_per_token", sums / lengths)):
        pairs = zip(scores, cases, strict=True)
        hits = sum(choose(row, case.label).share for row, case in pairs)
        estimate = intervals.of_share(hits, len(cases))
        found |= {name: estimate.value, f"{name}_95": [estimate.low, estimate.high]}
    found["logprobs"] = [float(row[case.label]) for row, case in zip(sums, cases, strict=True)]
    return found


def main(argv: list[str]) -> None:
    del argv
    os.environ["JAX_PLATFORMS"] = "cpu"  # of the commands
    jax.config.update("jax_platforms", "cpu")
    folder, base = work(), converted()
    task = tasks.find(_TASK)
    data = DataConfig(
        SOURCE.value,
        sequence_length=LENGTH.value,
        packing="best_fit",
        tokenizer=str(base / TOKENIZER),
        task=_TASK,
        limit=LIMIT.value * len(task.labels),
    )
    (corpus,) = prepare(data).corpora
    tokenizer, store = tokenizers.load(base / TOKENIZER), corpus.train
    reading = Reading(tokenizer, data.tokenizer, "", EXAMPLES.value)
    cases = read(data.corpora()[0], data.corpora()[0].eval_split, reading)
    labels = [tuple(map(int, ids)) for ids in tokenizer.encode_inner(task.labels)]
    begun = {ids[:end] for ids in labels for end in range(1, len(ids))}
    ended = [[*ids, *([tokenizer.eos_id] if ids in begun else [])] for ids in labels]

    steps = STEPS.value
    if steps is None:
        steps = max(round(EPOCHS.value * corpus.plan.n_bins / ROWS.value), 1)
    optimizer = OptimizerConfig(
        learning_rate=RATE.value, warmup_steps=WARMUP.value, weight_decay=0.0
    )
    a_step = round(ROWS.value * store.n_documents / corpus.plan.n_bins)
    how = {name: getattr(optimizer, name) for name in ("beta1", "beta2", "eps", "weight_decay")}
    how |= {"clip_norm": optimizer.clip_norm, "examples_a_step": a_step}
    how |= {"rank": RANK.value, "alpha": ALPHA.value, "targets": TARGETS.value}
    rates = np.asarray(learning_rate(optimizer, max(steps, 1))(np.arange(steps))).tolist()
    places = list(itertools.pairwise(map(int, store.token_offsets)))
    examples = [
        {"ids": store.read(*at).tolist(), "learned": store.learned(*at).tolist()} for at in places
    ]
    passed = {"model": str(Path(MODEL.value).resolve()), "how": how, "rates": rates}
    passed |= {"train": examples, "cases": [{"ids": case.ids} for case in cases], "labels": ended}
    (folder / "intents.json").write_text(json.dumps(passed))
    print(
        f"{len(examples):,} examples of {len(labels)} intents, {store.n_tokens:,} tokens in "
        f"{corpus.plan.n_bins:,} rows of {LENGTH.value}: {steps} steps of {ROWS.value} rows, or of "
        f"{a_step} examples; {len(cases)} cases",
        flush=True,
    )

    config = {
        "train.start_from": base,
        "train.steps": steps,
        "train.batch_size": ROWS.value,
        "data.source": SOURCE.value,
        "data.train_split": task.train_split,
        "data.eval_split": task.eval_split,
        "data.task": _TASK,
        "data.limit": data.limit,
        "data.packing": "best_fit",
        "data.sequence_length": LENGTH.value,
        "optimizer.learning_rate": RATE.value,
        "optimizer.warmup_steps": WARMUP.value,
        "optimizer.weight_decay": 0.0,
        "tuning.method": "lora",
        "tuning.rank": RANK.value,
        "tuning.alpha": ALPHA.value,
        "tuning.targets": tuple(TARGETS.value),
        "evaluation.every": 0,
        "checkpoint.every": max(steps, 1),
        "report.max_tokens": 1,
    }
    sides = {"podium": podium(folder, base, config)}
    lengths = plant(task.labels, labels, tokenizer.eos_id).lengths
    if other := torch(folder, cases, lengths):
        sides["transformers and peft"] = other
    for phase in ("before", "training", "after"):
        for side, found in sides.items():
            if one := found.get(phase):
                tell(phase, side, one)
    if other:
        compare(sides["podium"], other)
    for found in sides.values():
        for phase in ("before", "after"):
            found.get(phase, {}).pop("logprobs", None)
    results.write({"settings": {**how, "steps": steps, "cases": len(cases)}, "sides": sides})


def tell(phase: str, side: str, found: dict[str, Any]) -> None:
    what = (
        f"loss {found['losses'][0]:.3f} to {found['losses'][-1]:.3f}" if "losses" in found else ""
    )
    for name in ("accuracy", "accuracy_per_token"):
        if name in found:
            low, high = found[f"{name}_95"]
            what += f"{name} {found[name]:.1f} ({low:.1f} to {high:.1f})  "
    print(f"{phase:9} {side:22} {found['seconds']:7.1f} s  {what}", flush=True)


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """What the same weights give on both sides, and how long each phase takes."""
    before = zip(ours["before"]["logprobs"], theirs["before"]["logprobs"], strict=True)
    print(
        f"the right label's log-likelihood, before: {max(abs(a - b) for a, b in before):.1e} apart"
    )
    for phase in ("before", "training", "after"):
        if phase in ours and phase in theirs:
            ratio = theirs[phase]["seconds"] / ours[phase]["seconds"]
            print(f"{phase}: Podium is {ratio:.2f} x transformers and peft")


if __name__ == "__main__":
    app.run(main)
