"""The side of `transformers` and `peft` in the bench of intents.

    python -m bench.torch_intents WORK/intents.json

The file has tokens and settings, those of Podium's side (bench/intents.py). A JSON line is printed
after each phase: "before", "training", "after". A prompt is computed once; labels go on from copies
of its cache, those of one length together. Rows to learn from are padded to the longest of a batch.
"""

import copy
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import peft
import torch
import torch.nn.functional as F
import transformers

_MODULES = {
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "out": "o_proj",
    "gate": "gate_proj",
    "up": "up_proj",
    "down": "down_proj",
}


def likelihoods(model: Any, prompts: list[list[int]], labels: list[list[int]]) -> list[list[float]]:
    """Log-likelihoods of labels after each prompt."""
    by_length: dict[int, list[int]] = {}
    for number, label in enumerate(labels):
        by_length.setdefault(len(label), []).append(number)
    found = []
    for done, prompt in enumerate(prompts):
        if done % 25 == 0:
            print(f"{done} of {len(prompts)} prompts", file=sys.stderr, flush=True)
        sums = torch.zeros(len(labels), dtype=torch.float64)
        first = model(torch.tensor([prompt]), use_cache=True, logits_to_keep=1)
        at_first = first.logits[0, -1].log_softmax(-1)
        for length, numbers in by_length.items():
            ids = torch.tensor([labels[number] for number in numbers])
            scores = at_first[ids[:, 0]].double()
            if length > 1:
                cache = copy.deepcopy(first.past_key_values)
                cache.batch_repeat_interleave(len(numbers))
                logits = model(ids[:, :-1], past_key_values=cache, use_cache=True).logits
                at_next = logits.gather(-1, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)
                scores = scores + at_next.double().sum(1)
            sums[torch.tensor(numbers)] = scores
        found.append(sums.tolist())
    return found


def batch_of(examples: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, which of them are there, and targets (-100 where nothing is learned)."""
    length = max(len(example["ids"]) for example in examples)
    ids = torch.zeros(len(examples), length, dtype=torch.long)
    there, targets = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        tokens = torch.tensor(example["ids"])
        learned = torch.tensor(example["learned"])
        ids[row, : len(tokens)], there[row, : len(tokens)] = tokens, 1
        targets[row, : len(tokens)] = torch.where(learned, tokens, -100)
    return ids, there, targets


def train(model: Any, work: dict[str, Any]) -> list[float]:
    """The losses of the steps, in nats a learned token."""
    how, examples = work["how"], work["train"]
    moving = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        moving,
        betas=(how["beta1"], how["beta2"]),
        eps=how["eps"],
        weight_decay=how["weight_decay"],
    )
    order: list[int] = []
    torch.manual_seed(0)
    losses = []
    for step, rate in enumerate(work["rates"]):
        while len(order) < how["examples_a_step"]:
            order += torch.randperm(len(examples)).tolist()
        chosen, order = order[: how["examples_a_step"]], order[how["examples_a_step"] :]
        ids, there, targets = batch_of([examples[i] for i in chosen])
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(ids, attention_mask=there).logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moving, how["clip_norm"])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        assert math.isfinite(losses[-1])
        if step % 10 == 0:
            print(f"step {step + 1}: loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
    return losses


def main() -> None:
    work = json.loads(Path(sys.argv[1]).read_text())
    prompts = [case["ids"] for case in work["cases"]]
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        work["model"], dtype=torch.float32
    )

    def say(phase: str, began: float, **found: Any) -> None:
        spent = time.perf_counter() - began
        print(json.dumps({"phase": phase, "seconds": spent, **found}), flush=True)

    print(
        json.dumps({module.__name__: module.__version__ for module in (torch, transformers, peft)})
    )
    began = time.perf_counter()
    with torch.no_grad():
        found = likelihoods(model, prompts, work["labels"])
    say("before", began, likelihoods=found)
    if not work["rates"]:
        return
    how = work["how"]
    targets = [_MODULES[name] for name in how["targets"]]
    adapters = peft.LoraConfig(r=how["rank"], lora_alpha=how["alpha"], target_modules=targets)
    tuned = peft.get_peft_model(model, adapters)
    began = time.perf_counter()
    losses = train(tuned, work)
    say("training", began, losses=losses)
    merged = tuned.merge_and_unload().eval()
    began = time.perf_counter()
    with torch.no_grad():
        found = likelihoods(merged, prompts, work["labels"])
    say("after", began, likelihoods=found)


if __name__ == "__main__":
    main()
