"""GRPO with a reward that anyone can check: what is written must be Python.

    .venv/bin/python train.py --config=configs/tiny.py --workdir=runs/tiny
    .venv-tunix/bin/python -m reinforcement.example --workdir=runs/tiny --to=runs/tiny-parses

A prompt is the beginning of an assignment such as "size = ". An answer is what the model writes
after it, and its reward is 1 if Python's parser takes both together, else 0. Prints the mean reward
as it goes, and, last, one JSON line: that of fresh answers before and after, read from the two
workdirs.
"""

import ast
import importlib.util
import json
import sys
import warnings

from absl import flags

import commands
from checkpointing.workdir import Workdir
from errors import UserError
from evaluation.trained import parse_mesh
from inference.loading import Loaded, load_run
from inference.texts import Ending, continued
from model.generation import Sampling
from reinforcement import saving

WORKDIR = flags.DEFINE_string("workdir", "", "Directory of the run to begin with.")
TO = flags.DEFINE_string("to", "", "Directory for what comes of it.")
STEPS = flags.DEFINE_integer("steps", 60, "Updates.", lower_bound=1)
LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.")
MESH = flags.DEFINE_string(
    "mesh", None, "Devices along each mesh axis, such as fsdp=4. Default: as of generate.py."
)
BETA = flags.DEFINE_float("beta", 0.04, "Weight of the divergence from the run.", lower_bound=0.0)
SEED = flags.DEFINE_integer("seed", 0, "Of prompts and draws.", lower_bound=0)

NAMES = "a b i n x y name size path line data value count index result key".split()
PROMPTS = tuple(f"{name} = " for name in NAMES)
_TOKENS = 8
_JUDGED = 16  # fresh answers to each prompt


def parses(prompt: str, answer: str) -> float:
    """1 if prompt and answer together are Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            ast.parse(prompt + answer)
        except (SyntaxError, ValueError):
            return 0.0
    return 1.0


def check() -> None:
    """Refuses to begin where there is no Tunix."""
    if importlib.util.find_spec("tunix") is None:
        raise UserError(
            "Tunix is missing, which has an environment of its own: `sh requirements/reference.sh "
            "tunix` makes it, and then .venv-tunix/bin/python runs this"
        )


def main(job: commands.Job) -> None:
    from reinforcement.grpo import Settings, learn  # imports Tunix

    source, target = Workdir(WORKDIR.value), Workdir(TO.value, "--to")
    if job.others.count > 1:
        raise UserError("the example runs in one process: leave --distributed out")
    saving.check(target)
    loaded = load_run(source, mesh=None if MESH.value is None else parse_mesh(MESH.value))
    before = judged(loaded)
    settings = Settings(
        steps=STEPS.value,
        max_prompt=16,
        max_tokens=_TOKENS,
        learning_rate=LEARNING_RATE.value,
        beta=BETA.value,
        seed=SEED.value,
    )

    def said(step: int, reward: float) -> None:
        if step == 1 or step % 10 == 0:
            print(f"step {step}/{STEPS.value}  reward {reward:.3f}", file=sys.stderr, flush=True)

    params = learn(loaded, PROMPTS, parses, settings, said)
    saving.save(loaded, source, params, target)
    print(json.dumps({"before": before, "after": judged(load_run(target))}))


def judged(loaded: Loaded) -> float:
    """The mean reward of fresh answers, drawn as generate.py draws them."""
    generator = loaded.generator(Sampling())
    ids = [loaded.prompt(prompt) for prompt in PROMPTS]
    ending = Ending(_TOKENS, loaded.stop_ids)
    texts = continued(
        generator, loaded.tokenizer, ids, ending, num_samples=_JUDGED, seed=12345, batch_size=64
    )
    rewards = [parses(PROMPTS[text.prompt], text.text) for text in texts]
    return round(sum(rewards) / len(rewards), 4)


if __name__ == "__main__":
    commands.run(main, required=("workdir", "to"), check=check)
