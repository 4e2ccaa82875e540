"""Kills preparations at random moments, and compares what they leave with one left in peace.

    make marathon-data ARGS="--runs=20 -- --config=configs/books.py --config.data.…"

What follows `--` is for `python -m data.prepare`. Every run is killed (`kill -9` of the process
alone; its workers are to notice) once to three times, and then completed: every file of its stores,
plans and tokenizers must be that of the undisturbed one, to the byte. Not part of the suite. Prints
a line a run; exit code 1 if one differed.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from tests.running import ROOT

RUNS = flags.DEFINE_integer("runs", 20, "How many preparations to kill.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", None, "Of the moments. Default: another one every time.")


def main(argv: list[str]) -> None:
    seed = SEED.value if SEED.value is not None else random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    print(f"seed {seed}, {RUNS.value} runs", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        complete(argv[1:], Path(folder) / "whole")
        whole = time.monotonic() - began
        expected = content(Path(folder) / "whole")
        print(f"undisturbed: {whole:.0f}s, {len(expected)} files", flush=True)
        for run in range(RUNS.value):
            cache = Path(folder) / "killed"
            moments = [draw.uniform(0, whole) for _ in range(draw.randint(1, 3))]
            told = [kill(argv[1:], cache, moment) for moment in moments]
            complete(argv[1:], cache)
            same = content(cache) == expected
            bad += not same
            verdict = "identical" if same else "DIFFERENT"
            print(f"run {run}: killed {', '.join(told)}: {verdict}", flush=True)
            shutil.rmtree(cache)
    print(f"{RUNS.value - bad} of {RUNS.value} ended as the undisturbed one", flush=True)
    sys.exit(1 if bad else 0)


def start(args: list[str], cache: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "data.prepare", *args],
        env={**os.environ, "PODIUM_CACHE": str(cache), "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def complete(args: list[str], cache: Path) -> None:
    code = start(args, cache).wait(1800)
    if code:
        raise RuntimeError(f"data.prepare ended with exit code {code}: run it by itself")


def kill(args: list[str], cache: Path, after: float) -> str:
    """Kills a preparation after some seconds; says where it was."""
    process = start(args, cache)
    try:
        process.wait(after)
        return f"too late at {after:.1f}s"
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    chunks = sum(1 for _ in cache.glob("stores/.*.building/*.npz"))
    stores = sum(1 for path in cache.glob("stores/*") if path.name[0] != ".")
    return f"at {after:.1f}s with {chunks} chunks and {stores} stores"


def content(cache: Path) -> dict[str, str]:
    """The hash of every file that a run reads."""
    kinds = ("stores", "plans", "tokenizers", "baselines")
    files = [
        path
        for kind in kinds
        for path in (cache / kind).rglob("*")
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(cache).parts)
    ]
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


if __name__ == "__main__":
    app.run(main)
