"""The commands as a user runs them: subprocesses with a cache and a small dataset of their own."""

import copy
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorflow_datasets as tfds

ROOT = Path(__file__).resolve().parents[1]
Podium = Callable[..., subprocess.CompletedProcess[str]]


class Verses(tfds.core.GeneratorBasedBuilder):
    """A TFDS text dataset of a few kilobytes."""

    name = "verses"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, seed: int, **kwargs: Any) -> None:
        self._seed = seed
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: object) -> dict[str, object]:
        return {
            "train": self._generate_examples(2 * self._seed, 150),
            "validation": self._generate_examples(2 * self._seed + 1, 20),
        }

    def _generate_examples(self, seed: int, n: int) -> Iterator[tuple[int, dict[str, str]]]:
        rng = np.random.default_rng(seed)
        for i in range(n):
            words = rng.choice("rose thorn née moon sea def return import".split(), 5 + i % 40)
            yield i, {"text": " ".join(words) + "\n"}


class Ended(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str


class Pair:
    """The processes of one run."""

    def __init__(self, processes: list[subprocess.Popen[str]]):
        self.processes = processes

    def wait(self, timeout: float) -> list[Ended]:
        """How each ended; all within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        # Each has its own reader: a pipe that nobody reads would stop the one that writes to it.
        with ThreadPoolExecutor(len(self.processes)) as pool:
            outputs = pool.map(
                lambda p: p.communicate(timeout=deadline - time.monotonic()), self.processes
            )
            try:
                ends = list(outputs)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return [Ended(p.returncode, *end) for p, end in zip(self.processes, ends, strict=True)]

    def wait_for(self, index: int, timeout: float) -> Ended:
        """How one of them ended."""
        process = self.processes[index]
        out, err = process.communicate(timeout=timeout)
        return Ended(process.returncode, out, err)

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()


class Commands:
    """Runs the commands; every process it started is gone when the tests end."""

    def __init__(self, cache: Path, data: Path):
        self.data = data
        self.env = {
            **os.environ,
            "PODIUM_CACHE": str(cache),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
        }
        self.config = [
            "--config=configs/tiny.py",
            "--config.data.source=tfds:verses",
            f"--config.data.data_dir={data}",
            "--config.train.steps=12",
            "--config.checkpoint.every=3",
            "--config.checkpoint.keep=10",
            "--config.evaluation.every=6",
            "--config.evaluation.batch_size=8",
            "--config.report.max_tokens=4",
        ]
        self._started: list[subprocess.Popen[str]] = []

    def with_env(self, env: dict[str, str]) -> "Commands":
        """The same commands with more environment variables."""
        other = copy.copy(self)
        other.env = self.env | env
        return other

    def start(
        self, *args: str, env: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *args],
            env={**self.env, **(env or {})},
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def __call__(
        self, *args: str, env: dict[str, str] | None = None, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*args, env=env)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(list(args), process.returncode, out, err)

    def train(self, workdir: object, *args: str) -> list[str]:
        """The arguments of the small run."""
        return ["train.py", *self.config, f"--workdir={workdir}", *args]

    def pair(
        self,
        args: Sequence[str],
        args_of_1: Sequence[str] | None = None,
        *,
        count: int = 2,
        only: Sequence[int] = (0, 1),
        env: Sequence[dict[str, str]] = ({}, {}),
        cwd: Sequence[Path] = (ROOT, ROOT),
    ) -> Pair:
        """Starts processes 0 and 1 of one run of `count`.

        Args:
          args, args_of_1: of process 0, and of process 1 if they are others.
          only: which of the two to start.
          env, cwd: of each.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"--coordinator=127.0.0.1:{free.getsockname()[1]}"
        each = (args, args if args_of_1 is None else args_of_1)
        who = [(address, f"--num_processes={count}", f"--process_id={i}") for i in (0, 1)]
        return Pair([self.start(*each[i], *who[i], env=env[i], cwd=cwd[i]) for i in only])

    def verses(self, seed: int) -> Path:
        """The data_dir of another dataset of the same name."""
        data = self.data.with_name(f"{self.data.name}_{seed}")
        if not data.exists():
            build_verses(data, seed)
        return data

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()


def build_verses(data_dir: Path, seed: int = 0) -> None:
    tfds.disable_progress_bar()
    record = tfds.core.FileFormat.ARRAY_RECORD
    Verses(seed, data_dir=str(data_dir), file_format=record).download_and_prepare()


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def saved(workdir: Path, step: int, items: Sequence[str] = ("params", "optimizer")) -> Any:
    """Parameters and optimizer state as NumPy arrays, whatever processes and devices saved them."""
    checkpointer = ocp.PyTreeCheckpointer()

    def item(name: str) -> Any:
        path = (workdir / "checkpoints" / str(step) / name).absolute()
        tree = checkpointer.metadata(path).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(path, restore_args=plain)

    return {name: item(name) for name in items}


def assert_same_run(workdir: Path, other: Path, step: int = 12) -> None:
    assert metrics(workdir) == metrics(other)
    a, b = saved(workdir, step), saved(other, step)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
    ):
        np.testing.assert_array_equal(x, y, err_msg=str(path))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            return
        time.sleep(0.001)
