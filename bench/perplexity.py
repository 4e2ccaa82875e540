"""Perplexity of a converted model by eval.py, and of what it was converted from by `transformers`.

    .venv-reference/bin/python -m bench.perplexity --model=FOLDER --workdir=WORKDIR \
      --source=files:PATTERN --split=SPLIT

Both score every token of the text once, in the windows that eval.py makes (data/windows.py), in
float32. `make parity` makes the interpreter, in which both are.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from absl import app, flags

from bench import results
from checkpointing.workdir import TOKENIZER
from data import tokenizer as tokenizers
from data.config import DataConfig
from data.preparation import prepare_split
from data.windows import Windows
from reporting.progress import Progress

MODEL = flags.DEFINE_string("model", None, "Folder of the model, for transformers.", required=True)
WORKDIR = flags.DEFINE_string("workdir", None, "What convert.py made of it.", required=True)
SOURCE = flags.DEFINE_string("source", None, "Text, as data.source.", required=True)
SPLIT = flags.DEFINE_string("split", None, "Which part of it.", required=True)
LENGTH = flags.DEFINE_integer("sequence_length", 1024, "Tokens of a window.")
STRIDE = flags.DEFINE_integer("stride", 768, "Tokens between windows.")
ROWS = flags.DEFINE_integer("batch_size", 4, "Windows at a time, on both sides.")


def ours() -> dict[str, Any]:
    """What eval.py prints last."""
    of_text = [f"--source={SOURCE.value}", f"--split={SPLIT.value}"]
    sizes = {"sequence_length": LENGTH, "stride": STRIDE, "batch_size": ROWS}
    how = [f"--{name}={flag.value}" for name, flag in sizes.items()]
    command = [sys.executable, "eval.py", f"--workdir={WORKDIR.value}", *of_text, *how]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def scored(model: Any, windows: Windows) -> Iterator[torch.Tensor]:
    """The nats of every token that windows score, by `transformers`.

    Rows hold one window each here, since only the last window of a text is shorter than a row.
    """
    progress = Progress(windows.n_batches, unit="batch")
    for index in range(windows.n_batches):
        batch = {name: torch.from_numpy(rows) for name, rows in windows.batch(index).items()}
        if batch["segments"].max() > 1:
            raise ValueError("a row holds several windows: give one long text")
        with torch.no_grad():
            logits = model(input_ids=batch["tokens"].long()).logits
        for logits_TV, targets_T, weights_T in zip(
            logits, batch["targets"].long(), batch["weights"], strict=True
        ):
            # In double: PyTorch's float32 sum over so many ids is off by 1.4e-4 of a nat.
            nats_T = F.cross_entropy(logits_TV.double(), targets_T, reduction="none")
            yield nats_T[weights_T > 0]
        progress.update(index + 1)
    progress.close()


def windows_of_text() -> Windows:
    """What eval.py scores."""
    data = DataConfig(source=SOURCE.value, sequence_length=LENGTH.value)
    tokenizer = tokenizers.load(Path(WORKDIR.value) / TOKENIZER)
    stores, _ = prepare_split(data, SPLIT.value, tokenizer, lambda *_: None)
    (store,) = stores.values()
    return Windows(store, LENGTH.value, ROWS.value, STRIDE.value)


def theirs(windows: Windows) -> tuple[float, int]:
    """The loss, and how many tokens it is of."""
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL.value, dtype=torch.float32)
    nats = torch.cat(list(scored(model.eval(), windows)))
    return float(nats.mean()), nats.numel()


def main(argv: list[str]) -> None:
    del argv
    windows = windows_of_text()
    began = time.perf_counter()
    found = ours()
    between = time.perf_counter()
    loss, tokens = theirs(windows)
    seconds = between - began, time.perf_counter() - between
    if tokens != found["tokens"]:
        raise ValueError(f"eval.py scored {found['tokens']} tokens, transformers {tokens}")
    print(
        f"{tokens:,} tokens: perplexity {found['perplexity']:.4f} by eval.py, {math.exp(loss):.4f} "
        f"by transformers: {math.exp(found['loss'] - loss) - 1:+.2e}; "
        f"{seconds[0]:.0f} s and {seconds[1]:.0f} s"
    )
    results.write(
        {
            "tokens": tokens,
            "perplexity": found["perplexity"],
            "transformers_perplexity": math.exp(loss),
            "bits_per_byte": found["bits_per_byte"],
            "seconds": seconds[0],
            "transformers_seconds": seconds[1],
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }
    )


if __name__ == "__main__":
    app.run(main)
