"""Kills runs at random moments, and compares what they leave with a run that was left in peace.

    python -m tests.marathon --runs=20
    python -m tests.marathon --runs=10 --processes=2
    python -m tests.marathon --runs=5 --gcs

Every run is killed (`kill -9`, all its processes at once) one to three times: at a random step, or
while it starts or saves. Metrics, parameters and optimizer state must be those of the undisturbed
run, to the bit. Not part of the suite: it takes a minute a run. Prints a line a run; exit code 1 if
one differed.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags, logging
from etils import epath

from tests.running import Commands, Pair, assert_same_run, build_verses

RUNS = flags.DEFINE_integer("runs", 20, "How many runs to kill.", lower_bound=1)
PROCESSES = flags.DEFINE_integer("processes", 1, "Of each run.", lower_bound=1, upper_bound=2)
GCS = flags.DEFINE_bool("gcs", False, "Keep the runs in a bucket of a local storage server.")
SEED = flags.DEFINE_integer("seed", None, "Of the moments. Default: another one every time.")
STEPS = flags.DEFINE_integer("steps", 120, "Of each run.", lower_bound=10)

_EVERY = 6  # steps between saves
_OPTIONS = (f"--config.checkpoint.every={_EVERY}", "--config.checkpoint.keep=3")


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.ERROR)
    seed = SEED.value if SEED.value is not None else random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    print(f"seed {seed}, {RUNS.value} runs of {PROCESSES.value} process(es)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        build_verses(root / "verses")
        commands = Commands(root / "cache", root / "verses")
        where: epath.Path = epath.Path(root)
        server = None
        if GCS.value:
            from tests.bucket.conftest import BUCKET, environment, serve

            server, url = serve(root / "buckets")
            os.environ.update(environment(url))  # for this process, which looks into the bucket
            commands = commands.with_env(environment(url))
            where = epath.Path(f"gs://{BUCKET}")
        try:
            bad = run_all(commands, where, root, draw)
        finally:
            commands.end()
            if server is not None:
                server.kill()
    print(f"{RUNS.value - bad} of {RUNS.value} runs ended as the undisturbed one", flush=True)
    sys.exit(1 if bad else 0)


def run_all(commands: Commands, where: epath.Path, root: Path, draw: random.Random) -> int:
    """How many runs ended otherwise than the undisturbed one."""
    began = time.monotonic()
    finish(start(commands, epath.Path(root) / "whole"))
    print(f"undisturbed: {time.monotonic() - began:.0f}s", flush=True)
    bad = live = 0
    for index in range(RUNS.value):
        workdir = where / f"run{index}"
        told = []
        for _ in range(draw.randint(1, 3)):
            told.append(kill(commands, workdir, draw))
            if "too late" in told[-1]:
                break
        live += sum("too late" not in word for word in told)
        finish(start(commands, workdir))
        copy = Path(str(workdir))
        if GCS.value:
            from tests.bucket.test_runs import fetched

            copy = fetched(workdir, root / f"copy{index}")
        try:
            assert_same_run(copy, root / "whole", STEPS.value)
            verdict = "identical"
        except AssertionError as error:
            verdict = f"DIFFERS: {str(error).strip().splitlines()[0]}"
            bad += 1
        print(f"run {index}: killed {', '.join(told)}: {verdict}", flush=True)
    print(f"{live} kills of runs that were alive", flush=True)
    return bad


def start(commands: Commands, workdir: epath.Path) -> Pair:
    """Starts the run, or goes on with it."""
    args = [*commands.train(workdir, *_OPTIONS), f"--config.train.steps={STEPS.value}"]
    if PROCESSES.value == 1:
        return Pair([commands.start(*args)])
    return commands.pair([*args, "--config.mesh.data=1", "--config.mesh.fsdp=2"])


def finish(run: Pair) -> None:
    for ended in run.wait(600):
        if ended.code:
            raise SystemExit(f"a run failed with exit code {ended.code}:\n{ended.err}")


def kill(commands: Commands, workdir: epath.Path, draw: random.Random) -> str:
    """Goes on with the run, kills it, and says when."""
    run = start(commands, workdir)
    metrics, before = workdir / "metrics.jsonl", -1
    moment = draw.choice(("start", "step", "step", "save"))
    if moment == "start":
        time.sleep(draw.uniform(0, 10))
    else:
        before = done(metrics)
        wanted = before + draw.randint(1, 30)
        while done(metrics) < wanted and run.processes[0].poll() is None:
            time.sleep(0.002)
        if moment == "save":
            while not saving(workdir) and run.processes[0].poll() is None:
                time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
    saves = saving(workdir)
    run.kill()
    if run.processes[0].returncode != -signal.SIGKILL:
        return "too late"
    return f"{'in a save ' if saves else ''}after step {max(done(metrics), 0)}"


def done(metrics: epath.Path) -> int:
    return metrics.read_text().count("\n") if metrics.exists() else 0


def saving(workdir: epath.Path) -> bool:
    """Whether there is a checkpoint that is not complete."""
    checkpoints = workdir / "checkpoints"
    if not checkpoints.exists():
        return False
    if GCS.value:
        steps = [p for p in checkpoints.iterdir() if p.name.isdigit()]
        return any(not (p / "commit_success.txt").exists() for p in steps)
    return any("orbax-checkpoint-tmp" in p.name for p in checkpoints.iterdir())


if __name__ == "__main__":
    app.run(main)
