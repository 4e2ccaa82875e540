"""Where a training step's time goes on a CPU, as XLA's profiler saw one.

python -m bench profile --shape=gpt2_124m
"""

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from bench import results
from bench.podium_step import prepared
from bench.shape import SHAPES
from training.state import NOTHING

SHAPE = flags.DEFINE_enum("shape", "gpt2_124m", list(SHAPES["cpu"]), "Which of the CPU's.")

_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.-]+) = (\S+) .*?op_name="([^"]*)"')


def kind_of(shape: str, op_name: str, vocab: int) -> str:
    """What an operation is for, by the shape of its result and where in the code it is from."""
    if "jvp(" not in op_name:
        return "optimizer"
    product = op_name.endswith("dot_general")
    if "BKGQ" in op_name or op_name.count("while/body") > 1:
        return "attention, products" if product else "attention, the rest"
    if str(vocab) in shape or "MV," in op_name:
        return "head, products" if product else "head, the rest"
    if op_name.endswith("()/broadcast_in_dim"):
        return "zeros that the scan over layers begins with"
    if "dynamic_update" in op_name or "dynamic_index" in op_name:
        return "what the scan over layers stacks, and reads again"
    return "blocks, products" if product else "blocks, the rest"


def measure(name: str) -> dict[str, float]:
    """Seconds by kind, of the second step after the compilation."""
    shape = SHAPES["cpu"][name]
    with prepared(shape) as run, tempfile.TemporaryDirectory() as folder:
        batch = run.feed.next()[0]
        step: Any = run.step
        compiled = step.lower(run.state, NOTHING, batch).compile()
        state, _ = compiled(run.state, NOTHING, batch)
        with jax.profiler.trace(folder):
            jax.block_until_ready(compiled(state, NOTHING, batch))
        trace = next(Path(folder).rglob("*.xplane.pb"))
        data = jax.profiler.ProfileData.from_file(str(trace))
        vocab = shape.config().padded_vocab_size
        kinds = {
            found[1]: kind_of(found[2], found[3], vocab)
            for line in compiled.as_text().splitlines()
            if (found := _INSTRUCTION.match(line)) and " while(" not in line
        }
        seconds: Counter[str] = Counter()
        for plane in data.planes:
            for line in plane.lines:
                for event in line.events:
                    if kind := kinds.get(event.name):
                        seconds[kind] += event.duration_ns / 1e9
    return dict(seconds.most_common())


def main(argv: list[str]) -> None:
    del argv
    found = measure(SHAPE.value)
    total = sum(found.values())
    for kind, seconds in found.items():
        print(f"{seconds:7.3f} s  {seconds / total:6.1%}  {kind}")
    results.write({"shape": SHAPE.value, "seconds": found})


if __name__ == "__main__":
    app.run(main)
