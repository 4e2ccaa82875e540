"""Predicts what was published: the steps of MaxText's results, compiled as ours for the same TPUs.

    python -m bench predicted

No TPU is needed, but libtpu. Each result of bench/published.py has a recipe: shape, chips, mesh,
rows, what is kept and what is offloaded. The step of that run is compiled as train.py would compile
it, and its time predicted as plan.py does (planning/prediction.py). So what is compared is a
prediction of our program with a measurement of theirs. As many at a time as there are processors.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import app, flags

from bench import results
from bench.published import ROWS

KEYS = flags.DEFINE_list("rows", [], "Which results, as 'Llama3.1-8B v6e:16x16'; see ROWS.")

_ROOT = Path(__file__).parent.parent
DEFAULT = (
    "16B v5e:16x16",
    "32B v5e:16x16",
    "64B v5e:16x16",
    "128B v5e:16x16",
    "Llama2-70B v5p:8x8x8",
    "32B v5p:4x4x4",
    "128B v5p:4x4x8",
    "512B v5p:8x8x8",
    "Llama3.1-405B v5p:8x8x8",
    "Llama3.1-8B v6e:16x16",
    "Llama3.1-70B v6e:16x16",
    "Llama2-70B v6e:16x16",
    "GPT3-175B v6e:16x16",
    "Llama3.1-70B tpu7x:4x4x4",
)
"""A result or two of every table, each shape and chip once."""


def predict(key: str) -> dict[str, Any]:
    """What is predicted of one result, from a process of its own; nothing if that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.predicted_side", key],
        cwd=_ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        return {}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _described(one: dict[str, Any]) -> str:
    published, predicted = one["published_s"], one.get("predicted_s")
    if not predicted:
        return f"published {published:.3f} s, does not fit: not predicted"
    error = predicted / published - 1
    return f"published {published:.3f} s, predicted {predicted:.3f} s, {error:+.1%}"


def main(argv: list[str]) -> None:
    del argv
    known = [row.key for row in ROWS if row.config is not None]
    if unknown := sorted(set(KEYS.value) - set(known)):
        sys.exit(f"error: --rows={unknown[0]}: there are {', '.join(known)}")
    found: dict[str, dict[str, Any]] = {}
    failed: list[str] = []
    environment: dict[str, str] | None = None
    keys = KEYS.value or DEFAULT
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for key, one in zip(keys, pool.map(predict, keys), strict=True):
            if one:
                found[key] = one
                environment = one.pop("environment")
                print(f"{key}: {_described(one)}", flush=True)
            else:
                failed.append(key)
                print(f"{key}: failed (see above)", flush=True)
            # After each: what is done by then is kept if a later one is stopped.
            results.write({"rows": found, "failed": failed}, environment)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
