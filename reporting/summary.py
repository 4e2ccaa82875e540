"""What a finished run leaves for people: samples and the report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data.baselines import UNIFORM_BITS_PER_BYTE
from data.preparation import Prepared
from evaluation.tasks.judge import Judged
from inference.texts import Ending, continued
from model.decoder import Decoder
from model.generation import Generator, Sampling
from model.parameters import Params
from reporting.report import write_report
from sharding.table import sharding
from training.config import RunConfig


def draw_samples(
    config: RunConfig, outline: Decoder, params: Params, data: Prepared, mesh: Mesh
) -> list[dict[str, str]]:
    """Continues each of the config's prompts. Every process of a run calls this."""
    if not config.report.prompts:
        return []  # and the parameters need no other form
    how = Sampling(temperature=config.report.temperature, top_p=config.report.top_p)
    generator = Generator(outline, params, how, sharding(mesh, ()))
    tokenizer, prompts = data.tokenizer, config.report.prompts
    ids = [[tokenizer.bos_id, *map(int, tokenizer.encode_batch([p])[0])] for p in prompts]
    room = config.model.max_length - max(map(len, ids), default=0)
    ending = Ending(min(config.report.max_tokens, room), frozenset({tokenizer.eos_id}))
    texts = continued(generator, tokenizer, ids, ending, seed=config.train.seed)
    return [{"prompt": prompts[text.prompt], "text": text.text} for text in texts]


def report(
    workdir: Path,
    title: str,
    config: RunConfig,
    data: Prepared,
    final: dict[str, float],
    judged: Sequence[Judged],
    samples: list[dict[str, str]],
    ran_on: dict[str, str],
) -> Path:
    """Writes report.html into `workdir`.

    Args:
      final: the evaluation at the end, with its step.
      judged: what the tasks gave at the end.
      samples: from draw_samples.
      ran_on: from environment.describe, when the run began.
    """
    info: dict[str, Any] = {
        "title": title,
        "command": shlex.join(["python", *sys.argv]),
        "total_steps": config.train.steps,
        "config": config.to_dict(),
        "environment": ran_on,
        "dataset": data.description(config.data),
        "parameters": config.model.num_params(),
        "baselines": {
            **({"gzip -9 per file": gzip} if (gzip := data.gzip_bits_per_byte) else {}),
            "uniform": UNIFORM_BITS_PER_BYTE,
        },
        "final": final,
        "tasks": {one.name: one.line() | {"examples": one.examples} for one in judged},
        "samples": samples,
    }
    if jax.process_count() > 1:
        info["command"] += f"  # on each of {jax.process_count()} processes"
    return write_report(workdir, info)


def print_result(final: dict[str, float], judged: Sequence[Judged], data: Prepared) -> None:
    """The result beside its baselines, on standard output, and what the tasks gave."""
    gzip = data.gzip_bits_per_byte
    ours = final["bits_per_byte"]
    beside = ""
    if gzip:
        how = "below" if ours < gzip else "above"
        beside = f"; gzip -9 per file {gzip:.3f} ({abs(1 - ours / gzip):.1%} {how} gzip), uniform 8"
    print(
        f"held-out perplexity {final['perplexity']:.2f}, {ours:.3f} bits/byte over "
        f"{final['bytes']:,} bytes{beside}"
    )
    for one in judged:
        print(one)
    for corpus in data.corpora:
        print(f"data: {corpus.dataset} {corpus.fingerprint[:12]}")
