"""Text from a checkpoint.

    python generate.py --workdir=runs/python_stdlib --prompt='def main(' --max_tokens=200
    python generate.py --workdir=runs/python_stdlib --prompts_file=prompts.txt --output=json
    python generate.py --workdir=WORKDIR --chat

Prints each prompt and its continuation, one alone as it is drawn; the same --seed gives the same
text, whatever other prompts there are. docs/generation.md has all of it.
"""

import signal

if __name__ == "__main__":
    # Before libraries are read: Python's own handler raises an exception, which gets lost in JAX.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import json
import math
import sys
from collections.abc import Callable

import jax
from absl import flags
from etils import epath

import commands
from checkpointing.workdir import Workdir
from errors import UserError
from evaluation.trained import parse_mesh, resolve
from inference.conversation import Conversation
from inference.loading import Loaded, load_run, template_of
from inference.texts import Ending, Speed, Text, continued
from model.generation import Generator, PromptError, Sampling

WORKDIR = flags.DEFINE_string("workdir", "", "Directory of a run, or gs://BUCKET/FOLDER.")
BASE = flags.DEFINE_string(
    "base", "", "Where what a run began with is now, if part of it moved. Default: where it was."
)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to use. Default: the newest.")
PROMPT = flags.DEFINE_multi_string(
    "prompt", [], "Text to continue; give it several times for several. None starts a document."
)
PROMPTS_FILE = flags.DEFINE_string(
    "prompts_file", None, 'Prompts, one a line; in a .jsonl file one a line as {"prompt": "..."}.'
)
CHAT = flags.DEFINE_bool(
    "chat",
    False,
    "Prompts are messages of a user, in the model's chat template. Without a prompt: a message a "
    "line from standard input, all turns kept; /reset forgets them, Ctrl-D ends.",
)
SYSTEM = flags.DEFINE_string("system", "", "With --chat: what the model is told before.")
MAX_TOKENS = flags.DEFINE_integer("max_tokens", 200, "At most so many new tokens.", lower_bound=0)
TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "Higher is wilder; 0 takes the likeliest.")
TOP_K = flags.DEFINE_integer("top_k", 0, "Draw from the k likeliest tokens; 0 is off.")
TOP_P = flags.DEFINE_float(
    "top_p", 0.95, "Draw from the likeliest tokens that together have this probability; 1 is off."
)
MIN_P = flags.DEFINE_float(
    "min_p", 0.0, "Draw from tokens with this share of the likeliest one's probability; 0 is off."
)
REPETITION_PENALTY = flags.DEFINE_float(
    "repetition_penalty", 1.0, "Above 1 makes what is in the text already less likely; 1 is off."
)
STOP = flags.DEFINE_multi_string("stop", [], "Text ends before this string; may be given again.")
STOP_ID = flags.DEFINE_multi_integer(
    "stop_id", [], "Text ends at this token id, besides those that the model came with."
)
SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")
NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 1, "Texts of each prompt; number i has --seed plus i.", lower_bound=1
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Texts at a time.", lower_bound=1)
OUTPUT = flags.DEFINE_enum("output", "text", ["text", "json"], "json: a line for each text.")
TOP_LOGPROBS = flags.DEFINE_integer(
    "top_logprobs", 0, "With --output=json: so many likeliest tokens at each place.", lower_bound=0
)
CACHE_DTYPE = flags.DEFINE_enum(
    "cache_dtype", None, ["bfloat16", "float32"], "Of keys and values. Default: the model's dtype."
)
MESH = flags.DEFINE_string(
    "mesh",
    None,
    "Devices along each mesh axis, such as fsdp=2,tensor=4; -1 is the rest. Default: tensor as far "
    "as heads, MLP and vocabulary can be split, and copies on what is left.",
)


def main(job: commands.Job) -> None:
    try:
        how = Sampling(
            TEMPERATURE.value,
            TOP_K.value,
            TOP_P.value,
            MIN_P.value,
            REPETITION_PENALTY.value,
        )
    except ValueError as error:
        raise UserError(f"--{error}") from None
    if "" in STOP.value:
        raise UserError("--stop='': give a string that is not empty, or leave the flag out")
    prompts = _prompts()
    talks = CHAT.value and not prompts
    if talks and job.others.count > 1:
        raise UserError("--chat of several processes needs --prompt: they cannot share a keyboard")
    workdir = Workdir(WORKDIR.value)
    mesh = None if MESH.value is None else parse_mesh(MESH.value)
    step = resolve(workdir, STEP.value)
    commands.compare(job, "what to load", {"the step": str(step), **commands.given_flags()})
    job.watch.at("loading the checkpoint", job.watch.bounds.start)
    loaded = load_run(workdir, step, mesh, base=BASE.value)
    if CHAT.value:
        template_of(loaded)
    job.watch.bounds = loaded.trained.config.watch
    top = TOP_LOGPROBS.value if OUTPUT.value == "json" else 0
    generator = loaded.generator(how, cache_dtype=CACHE_DTYPE.value, top=top)
    stop_ids = loaded.stop_ids | set(STOP_ID.value)
    ending = Ending(MAX_TOKENS.value, frozenset(stop_ids), tuple(STOP.value))

    def at(what: str) -> None:
        bounds = job.watch.bounds
        job.watch.at(what, bounds.step if what.startswith("drawing") else bounds.start)

    def wait() -> None:  # people take their time
        job.watch.at("waiting for a message", math.inf)

    speed = Speed()
    try:
        if talks:
            _talk(Conversation(loaded, generator, ending, SYSTEM.value), wait, at, speed)
        else:
            _continue(loaded, generator, ending, prompts or [""], at, speed)
    except PromptError as error:
        raise UserError(str(error)) from None
    if jax.process_index() == 0:
        print(f"[step {step}: {speed}]", file=sys.stderr)


def _prompts() -> list[str]:
    prompts = list(PROMPT.value)
    if PROMPTS_FILE.value is None:
        return prompts
    path = epath.Path(PROMPTS_FILE.value)
    try:
        text = path.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts_file={path}: cannot be read as text ({error})") from None
    lines = text.split("\n") if text else []  # JSON may have other ends of lines in its strings
    for number, line in enumerate(lines, start=1):
        if path.suffix != ".jsonl":
            prompts.append(line)
            continue
        try:
            prompt = json.loads(line)["prompt"]
        except (ValueError, TypeError, KeyError):
            prompt = None
        if not isinstance(prompt, str):
            raise UserError(f'--prompts_file={path}, line {number}: give {{"prompt": "..."}}')
        prompts.append(prompt)
    if not prompts:
        raise UserError(f"--prompts_file={path} has no prompt")
    return prompts


def _continue(
    loaded: Loaded,
    generator: Generator,
    ending: Ending,
    prompts: list[str],
    at: Callable[[str], None],
    speed: Speed,
) -> None:
    shown, as_text = jax.process_index() == 0, OUTPUT.value == "text"
    ids = [_ids(loaded, generator, ending, prompt) for prompt in prompts]
    alone = as_text and len(prompts) * NUM_SAMPLES.value == 1
    if alone and shown and not CHAT.value:
        print(prompts[0], end="", flush=True)

    def show(_: Text, piece: str) -> None:
        if alone and shown:
            print(piece, end="", flush=True)

    for text in continued(
        generator,
        loaded.tokenizer,
        ids,
        ending,
        seed=SEED.value,
        num_samples=NUM_SAMPLES.value,
        batch_size=BATCH_SIZE.value,
        show=show,
        at=at,
        speed=speed,
    ):
        if not shown:
            continue
        if not as_text:
            print(json.dumps(_line(prompts[text.prompt], text), ensure_ascii=False), flush=True)
        elif alone:
            print(flush=True)
        else:
            sample = f", sample {text.sample}" if NUM_SAMPLES.value > 1 else ""
            before = "" if CHAT.value else prompts[text.prompt]
            print(f"--- prompt {text.prompt}{sample}\n{before}{text.text}", flush=True)


def _ids(loaded: Loaded, generator: Generator, ending: Ending, prompt: str) -> list[int]:
    if not CHAT.value:
        return loaded.prompt(prompt)
    conversation = Conversation(loaded, generator, ending, SYSTEM.value)
    conversation.messages.append({"role": "user", "content": prompt})
    return conversation.ids()


def _line(prompt: str, text: Text) -> dict[str, object]:
    line: dict[str, object] = {
        "prompt": prompt,
        "sample": text.sample,
        "text": text.text,
        "ids": text.ids,
        "logprobs": [round(x, 6) for x in text.logprobs],
        "finish": text.finish,
    }
    if text.top:
        line["top_logprobs"] = [[[i, round(x, 6)] for i, x in likeliest] for likeliest in text.top]
    return line


def _talk(
    conversation: Conversation,
    wait: Callable[[], None],
    at: Callable[[str], None],
    speed: Speed,
) -> None:
    prompt = "> " if sys.stdin.isatty() else ""
    turn = 0
    while True:
        wait()
        print(prompt, end="", flush=True)
        if not (line := sys.stdin.readline()):
            print(flush=True)
            return
        if not (message := line.strip()):
            continue
        if message == "/reset":
            conversation.reset()
            continue
        show = _printed if OUTPUT.value == "text" else _dropped
        try:
            text = conversation.answer(
                message, seed=SEED.value + turn, show=show, at=at, speed=speed
            )
        except PromptError as error:
            print(f"note: {error}, or forget all turns: /reset", file=sys.stderr)
            continue
        turn += 1
        if OUTPUT.value == "json":
            print(json.dumps(_line(message, text), ensure_ascii=False), flush=True)
        else:
            print(flush=True)


def _printed(piece: str) -> None:
    print(piece, end="", flush=True)


def _dropped(piece: str) -> None:
    del piece


if __name__ == "__main__":
    commands.run(main, required=("workdir",), check=lambda: Workdir(WORKDIR.value))
