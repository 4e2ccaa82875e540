"""The commands as a user runs them: subprocesses with a cache and a small dataset of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

ROOT = Path(__file__).resolve().parents[2]
Podium = Callable[..., subprocess.CompletedProcess[str]]


class Verses(tfds.core.GeneratorBasedBuilder):
    """A TFDS text dataset of a few kilobytes."""

    name = "verses"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: object) -> dict[str, object]:
        return {
            "train": self._generate_examples(0, 150),
            "validation": self._generate_examples(1, 20),
        }

    def _generate_examples(self, seed: int, n: int) -> Iterator[tuple[int, dict[str, str]]]:
        rng = np.random.default_rng(seed)
        for i in range(n):
            words = rng.choice("rose thorn née moon sea def return import".split(), 5 + i % 40)
            yield i, {"text": " ".join(words) + "\n"}


class Commands:
    """Runs the commands; every process it started is gone when the tests end."""

    def __init__(self, cache: Path, data: Path):
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

    def start(
        self, *args: str, env: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *args],
            env={**self.env, **(env or {})},
            cwd=cwd,
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

    def train(self, workdir: Path, *args: str) -> list[str]:
        """The arguments of the small run."""
        return ["train.py", *self.config, f"--workdir={workdir}", *args]

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(scope="session")
def podium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    data = tmp_path_factory.mktemp("verses")
    tfds.disable_progress_bar()
    Verses(data_dir=str(data), file_format=tfds.core.FileFormat.ARRAY_RECORD).download_and_prepare()
    commands = Commands(tmp_path_factory.mktemp("podium_cache"), data)
    yield commands
    commands.end()


@pytest.fixture(scope="session")
def finished(podium: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the uninterrupted run."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = podium(*podium.train(workdir))
    assert done.returncode == 0, done.stderr
    assert (workdir / "report.html").is_file()
    return workdir


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]
