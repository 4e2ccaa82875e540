"""The first losses of DPO on GSM8K's preferences, in Podium and in `trl`.

    python -m bench preferences --torch_python=PYTHON --model=FOLDER --work=FOLDER \
      --source="files:$PODIUM_ASSETS/tasks/gsm8k/preferences_*.jsonl.gz"

FOLDER of the model is one for `transformers`. On this machine's processor, in float32. Podium's are
those of train.py with configs/preferences.py; `trl`, whose trainer has the model and its reference,
is given the same pairs in the same steps, one after the other, with the same optimizer and rates.
It is no dependency: --torch_python names an interpreter that has it, PyTorch and transformers.
"""

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
from checkpointing import record
from checkpointing.workdir import Workdir
from data.preparation import prepare
from data.rows import Batch
from data.stream import stream_of
from reporting.metrics import read_metrics
from training.schedule import learning_rate

flags.adopt_module_key_flags(running)  # --help shows them, too
TORCH_PYTHON = flags.DEFINE_string(
    "torch_python", sys.executable, "A Python interpreter that has PyTorch, transformers and trl."
)
STEPS = flags.DEFINE_integer("steps", 20, "How many are compared.")


def pairs(batch: Batch) -> list[dict[str, list[int]]]:
    """The pairs of a batch, as `trl` has them."""
    found = []
    for row in range(batch["tokens"].shape[0]):
        segments = batch["segments"][row]
        answers = []
        for segment in range(1, int(segments.max()) + 1):
            here = np.flatnonzero(segments == segment)
            ids = [int(batch["tokens"][row, here[0]]), *batch["targets"][row, here].tolist()]
            prompt = 1 + int(np.argmax(batch["weights"][row, here]))
            answers.append((ids[:prompt], ids[prompt:]))
        for (asked, chosen), (same, rejected) in zip(answers[::2], answers[1::2], strict=True):
            assert asked == same
            found.append({"prompt_ids": asked, "chosen_ids": chosen, "rejected_ids": rejected})
    return found


def main(argv: list[str]) -> None:
    del argv
    os.environ["JAX_PLATFORMS"] = "cpu"  # of the commands
    jax.config.update("jax_platforms", "cpu")
    folder, base, steps = work(), converted(), STEPS.value
    run = folder / "podium"
    changed = {
        "train.start_from": base,
        "train.steps": steps,
        "data.source": SOURCE.value,
        "evaluation.every": 0,
    }
    start = ("train.py", "--config=configs/preferences.py", f"--workdir={run}")
    command(*start, *flags_of(changed))
    saved = Workdir(str(run))
    config = record.read(saved.read_run() or {}, saved)[0].config
    ours = [line for _, line in read_metrics(run) if "preference_loss" in line]
    stream = stream_of(config.data, config.train.batch_size, prepare(config.data))
    optimizer, objective = config.optimizer, config.objective
    names = ("beta1", "beta2", "eps", "weight_decay", "clip_norm")
    how: dict[str, Any] = {name: getattr(optimizer, name) for name in names}
    passed = {
        "model": str(Path(MODEL.value).resolve()),
        "how": how | {"beta": objective.beta},
        "rates": np.asarray(learning_rate(optimizer, steps)(np.arange(steps))).tolist(),
        "steps": [pairs(stream.batch(step)) for step in range(steps)],
    }
    (folder / "preferences.json").write_text(json.dumps(passed))
    arguments = [TORCH_PYTHON.value, "-m", "bench.torch_preferences"]
    done = subprocess.run([*arguments, str(folder / "preferences.json")], stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit("error: trl did not do it: see above")
    theirs = json.loads(done.stdout.splitlines()[-1])
    losses = {
        "podium": [line["preference_loss"] for line in ours],
        "trl": theirs.pop("losses"),
    }
    apart = [abs(a - b) for a, b in zip(*losses.values(), strict=True)]
    for step, (mine, other) in enumerate(zip(*losses.values(), strict=True), 1):
        count = len(passed["steps"][step - 1])
        print(f"step {step:2}  {count} pairs  Podium {mine:.7f}  trl {other:.7f}", flush=True)
    print(f"largest difference {max(apart):.1e}; trl took {theirs['seconds']:.0f} s")
    found = {"losses": losses, "largest_difference": max(apart), "trl": theirs}
    settings = {"how": passed["how"], "rates": passed["rates"]}
    results.write(settings | found)


if __name__ == "__main__":
    app.run(main)
