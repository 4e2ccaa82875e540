"""Eight simulated CPU devices for every test, and what many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.running import Commands

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"


@pytest.fixture(scope="session")
def podium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """The commands, with a cache and a small dataset of their own."""
    from tests.running import Commands, build_verses  # imports TFDS: few tests need it

    data = tmp_path_factory.mktemp("verses")
    build_verses(data)
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
