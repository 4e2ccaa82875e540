"""The side of `trl` in the bench of preferences.

    python -m bench.torch_preferences WORK/preferences.json

The file has the pairs of each step and settings (bench/preferences.py). The trainer's own collator
makes its batches, and its own function the loss. A JSON line is printed at the end.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text())
    model, reference = (
        transformers.AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32)
        for _ in range(2)
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(work["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    how = work["how"]
    with tempfile.TemporaryDirectory() as folder:
        args = trl.DPOConfig(
            output_dir=folder,
            beta=how["beta"],
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            report_to=[],
            disable_dropout=True,
        )
        # Its trainer wants a dataset; what it learns from is handed to it below.
        some = datasets.Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}])
        trainer: Any = trl.DPOTrainer(
            model, reference, args, train_dataset=some, processing_class=tokenizer
        )
    moving = list(trainer.model.parameters())
    optimizer = torch.optim.AdamW(
        moving,
        betas=(how["beta1"], how["beta2"]),
        eps=how["eps"],
        weight_decay=how["weight_decay"],
    )
    began, losses = time.perf_counter(), []
    for step, (rate, pairs) in enumerate(zip(work["rates"], work["steps"], strict=True), 1):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(pairs))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, how["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        print(f"step {step}: loss {losses[-1]:.6f}", file=sys.stderr, flush=True)
    versions = {module.__name__: module.__version__ for module in (torch, transformers, trl)}
    print(json.dumps({"losses": losses, "seconds": time.perf_counter() - began, **versions}))


if __name__ == "__main__":
    main()
