"""Compiles our training step and MaxText's for the same TPUs and shapes, side by side.

    python -m bench tpu --python=PYTHON

No TPU is needed: the compiler that comes with libtpu says what each chip would hold, compute and
exchange. --python names an interpreter (3.12 or later) that has both:
`pip install "maxtext[tpu]"`.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from bench import results
from model.config import ModelConfig
from model.moe_config import MoeConfig

PYTHON = flags.DEFINE_string("python", sys.executable, "A Python interpreter with maxtext[tpu].")
NAMES = flags.DEFINE_list("shapes", [], "Which of the shapes; all of them by default.")

_MUON = ("llama2_7b", "llama3_8b")
_ROOT = Path(__file__).parent.parent


class Shape(NamedTuple):
    """A model on some chips.

    Attributes:
      topology: in libtpu's terms.
      rows, length: sequences on a chip, and their tokens.
      model: what it has besides the Llamas' head size of 128, tables that are not tied, and
        everything recomputed in the backward pass.
      maxtext_topology, maxtext_model: the same in MaxText's terms; its v5p-N has N / 2 chips.
      expert: chips along `expert`; all others are along `fsdp`.
    """

    topology: str
    rows: int
    length: int
    model: Mapping[str, Any]
    maxtext_topology: str
    maxtext_model: str
    expert: int = 1

    def config(self) -> ModelConfig:
        """The model in Podium's terms."""
        return ModelConfig(
            **self.model,
            head_dim=128,
            max_length=self.length,
            tie_embeddings=False,
            dtype="bfloat16",
            remat="full",
            logits_mb=512,
        )


_OF_7B = dict(num_layers=32, embed_dim=4096, num_heads=32)
_OF_8B = dict(vocab_size=128256, num_kv_heads=8, mlp_dim=14336, **_OF_7B)
_OF_70B = dict(vocab_size=32000, num_layers=80, embed_dim=8192, num_heads=64, num_kv_heads=8)
_MIXTRAL = dict(
    vocab_size=32000,
    num_kv_heads=8,
    mlp_dim=14336,
    moe=MoeConfig(num_experts=8, experts_per_token=2, expert_mlp_dim=14336),
    **_OF_7B,
)

SHAPES = {
    "llama2_7b": Shape(
        "v5e:4x4",
        2,
        2048,
        dict(vocab_size=32000, num_kv_heads=32, mlp_dim=11008, **_OF_7B),
        "v5e-16",
        "llama2-7b",
    ),
    "llama3_8b": Shape("v6e:4x4", 1, 8192, _OF_8B, "v6e-16", "llama3.1-8b"),
    "llama3_8b_256": Shape("v6e:16x16", 1, 8192, _OF_8B, "v6e-256", "llama3.1-8b"),
    "llama2_70b": Shape(
        "v5p:4x4x8", 2, 4096, dict(mlp_dim=28672, **_OF_70B), "v5p-256", "llama2-70b"
    ),
    "mixtral_8x7b": Shape("v5p:4x8x8", 2, 4096, _MIXTRAL, "v5p-512", "mixtral-8x7b"),
    "mixtral_8x7b_experts": Shape(
        "v5p:4x8x8", 2, 4096, _MIXTRAL, "v5p-512", "mixtral-8x7b", expert=8
    ),
}


def _sides(shape: str) -> tuple[str, ...]:
    """Of a shape: with Muon, too, where it compiles in a minute."""
    return ("podium", "maxtext") if shape not in _MUON else ("podium", "podium_muon", "maxtext")


def side(which: str, shape: str) -> dict[str, Any]:
    """What the compiler says of one side, from a process of its own."""
    done = subprocess.run(
        [PYTHON.value, "-m", "bench.tpu_side", which, shape],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or "nothing was said").splitlines()[-1]
        sys.exit(f"error: {which} {shape} does not compile ({last}): see --help for what is needed")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main(argv: list[str]) -> None:
    del argv
    found: list[dict[str, Any]] = []
    if unknown := sorted(set(NAMES.value) - set(SHAPES)):
        sys.exit(f"error: --shapes={unknown[0]}: there are {', '.join(SHAPES)}")
    peer = [PYTHON.value, "-c", "import libtpu, maxtext"]
    try:
        there = subprocess.run(peer, capture_output=True, check=False).returncode == 0
    except OSError:
        there = False
    if not there:
        sys.exit(f"error: --python={PYTHON.value} has no maxtext[tpu]: see --help")
    for shape in NAMES.value or SHAPES:
        sides = {which: side(which, shape) for which in _sides(shape)}
        ours, theirs = sides["podium"], sides["maxtext"]
        found += sides.values()
        for one in sides.values():
            exchanged = sum(one["exchanges"].values()) / 1e9
            kernels = ", ".join(
                f"{name} x {k['calls']} ({k['flops'] / 1e12:.1f} TFLOP, {k['bytes'] / 1e9:.1f} GB)"
                for name, k in one["kernels"].items()
            )
            print(
                f"{shape} {one['side']:11} arguments {one['arguments'] / 1e9:6.2f} GB  temporaries "
                f"{one['temporaries'] / 1e9:6.2f} GB  {one['cycles'] / 1e9:6.3f}e9 cycles  "
                f"{exchanged:6.1f} GB exchanged  kernels: {kernels or 'none'}"
            )
        of = {key: ours[key] / theirs[key] for key in ("temporaries", "cycles")}
        told = ", ".join(f"{key} {ratio:.3f}" for key, ratio in of.items())
        print(f"{shape} podium / maxtext: {told}")
    environments = [one.pop("environment") for one in found]
    results.write({"sides": found}, environments[0])


if __name__ == "__main__":
    app.run(main)
