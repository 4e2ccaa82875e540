"""Text from a checkpoint.

    python generate.py --workdir=runs/python_stdlib --prompt='def main(' --max_tokens=200

Prints the prompt and its continuation as it is drawn; the same --seed gives the same text.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import sys
import time

import jax
from absl import flags

import commands
from checkpointing.workdir import TOKENIZER, Workdir
from data import tokenizer as tokenizers
from errors import UserError
from evaluation.trained import load, parse_mesh, resolve
from model.generation import Generator, Sampling
from sharding.table import sharding

WORKDIR = flags.DEFINE_string("workdir", "", "Directory of a run, or gs://BUCKET/FOLDER.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to use. Default: the newest.")
PROMPT = flags.DEFINE_string("prompt", "", "Text to continue; empty starts a document.")
MAX_TOKENS = flags.DEFINE_integer("max_tokens", 200, "At most so many new tokens.")
TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "Higher is wilder; 0 takes the likeliest.")
TOP_K = flags.DEFINE_integer("top_k", 0, "Draw from the k likeliest tokens; 0 is off.")
TOP_P = flags.DEFINE_float(
    "top_p", 0.95, "Draw from the likeliest tokens that together have this probability; 1 is off."
)
SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")
MESH = flags.DEFINE_string(
    "mesh",
    None,
    "Devices along each mesh axis, such as fsdp=2,tensor=4; -1 is the rest. Default: tensor as far "
    "as heads, MLP and vocabulary can be split, and copies on what is left.",
)


def main(job: commands.Job) -> None:
    try:
        how = Sampling(TEMPERATURE.value, TOP_K.value, TOP_P.value)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    workdir = Workdir(WORKDIR.value)
    mesh = None if MESH.value is None else parse_mesh(MESH.value)
    step = resolve(workdir, STEP.value)
    commands.compare(job, "what to load", {"the step": str(step), **commands.given_flags()})
    job.watch.at("loading the checkpoint", job.watch.bounds.start)
    trained = load(workdir, step, mesh, rows=None)
    job.watch.bounds = trained.config.watch
    tokenizer = tokenizers.load(workdir.path / TOKENIZER)
    generator = Generator(trained.outline, trained.params, how, sharding(trained.mesh, ()))
    ids = [tokenizer.bos_id, *tokenizer.encode_batch([PROMPT.value])[0]]
    try:
        drawn = generator(ids, max_tokens=MAX_TOKENS.value, seed=SEED.value, stop=tokenizer.eos_id)
    except ValueError as error:
        raise UserError(f"--{error}") from None

    show = jax.process_index() == 0
    if show:
        print(PROMPT.value, end="", flush=True)
    decoder = tokenizers.StreamingDecoder(tokenizer)
    count, first = 0, time.perf_counter()
    job.watch.at("compiling", job.watch.bounds.start)
    for token in drawn:
        count += 1
        # The second one is the first of its shape, and compiles again.
        bounds = job.watch.bounds
        job.watch.at(f"drawing token {count + 1}", bounds.step if count > 1 else bounds.start)
        if count == 2:  # the first two tokens waited for compilation
            first = time.perf_counter()
        if show:
            print(decoder.add(token), end="", flush=True)
    if show:
        print(decoder.end(), flush=True)
        rate = (count - 2) / (time.perf_counter() - first) if count > 2 else 0.0
        print(
            f"[step {trained.step}, {count} tokens, {rate:.0f} tokens/s after the first two]",
            file=sys.stderr,
        )


if __name__ == "__main__":
    commands.run(main, required=("workdir",), check=lambda: Workdir(WORKDIR.value))
