"""Loss over the same tokens: AdamW and Muon, float32, bfloat16, int8 and fp8, each at some rates.

    python -m bench curves --out=bench/results/curves_cpu.json

The model and the data are those of configs/python_stdlib.py, for fewer steps, held out from its
train split, so that rates chosen here have not seen what the default run is judged by. Runs that
are finished are kept: the same command goes on after an interruption.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from bench import results

STEPS = flags.DEFINE_integer("steps", 240, "Of every run.", lower_bound=10)
WORKDIR = flags.DEFINE_string("workdir", "runs/curves", "Where the runs are.")
NAMES = flags.DEFINE_list("curves", [], "Which; all by default.")

_ROOT = Path(__file__).parent.parent


class Curve(NamedTuple):
    """A way to train, and the learning rates to try."""

    settings: dict[str, str]
    rates: tuple[float, ...]


_RATES = (5e-4, 1e-3, 2e-3)
_ADAMW = {"optimizer.name": "adamw"}
_IN_BF16 = {**_ADAMW, "model.dtype": "bfloat16"}
CURVES = {
    "adamw-float32": Curve(_ADAMW, (*_RATES, 4e-3)),
    "adamw-bfloat16": Curve(_IN_BF16, _RATES),
    "adamw-bfloat16-int8": Curve({**_IN_BF16, "model.quantization": "int8"}, _RATES),
    "adamw-bfloat16-fp8": Curve({**_IN_BF16, "model.quantization": "fp8"}, _RATES),
    "muon-float32": Curve({"optimizer.name": "muon"}, (2e-3, 4e-3, 8e-3)),
}


def arguments(name: str, rate: float, workdir: Path) -> list[str]:
    """Of train.py."""
    steps = STEPS.value
    settings = {
        "data.train_split": "train[:97%]",
        "data.eval_split": "train[97%:]",
        "train.steps": steps,
        "optimizer.decay_steps": steps * 2 // 5,
        "optimizer.learning_rate": f"{rate:g}",
        "evaluation.every": steps // 6,
        "checkpoint.every": steps,
        **CURVES[name].settings,
    }
    return [
        "train.py",
        "--config=configs/python_stdlib.py",
        f"--workdir={workdir}",
        *(f"--config.{key}={value}" for key, value in settings.items()),
    ]


def curve(name: str, rate: float) -> dict[int, float]:
    """Step -> held-out bits a byte, of a run that is begun or gone on with."""
    folder = f"{name}-{rate:g}"
    workdir = Path(WORKDIR.value).absolute() / folder
    command = [sys.executable, *arguments(name, rate, workdir)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {folder} ended with {done.returncode}: {done.stderr[-500:]}")
    found = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        if "eval/bits_per_byte" in metrics:
            found[metrics["step"]] = metrics["eval/bits_per_byte"]
    return found


def main(argv: list[str]) -> None:
    del argv
    if unknown := sorted(set(NAMES.value) - set(CURVES)):
        sys.exit(f"error: --curves={unknown[0]}: there are {', '.join(CURVES)}")
    wanted = NAMES.value or list(CURVES)
    quantized = any("model.quantization" in CURVES[name].settings for name in wanted)
    if quantized and not find_spec("qwix"):
        sys.exit("error: int8 and fp8 need Qwix: `make setup QUANTIZATION=1`, or give --curves")
    found: dict[str, dict[str, dict[int, float]]] = {}
    for name in wanted:
        found[name] = {}
        for rate in CURVES[name].rates:
            points = curve(name, rate)
            found[name][f"{rate:g}"] = points
            told = "  ".join(f"{step}: {bits:.3f}" for step, bits in points.items())
            print(f"{name}, {rate:g}: {told}", flush=True)
    example = arguments("adamw-float32", 1e-3, Path("RUN"))
    results.write({"steps": STEPS.value, "example": ["python", *example], "curves": found})


if __name__ == "__main__":
    app.run(main)
