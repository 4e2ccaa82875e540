"""Podium's own commands, run as a user runs them, on a model that was converted."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

MODEL = flags.DEFINE_string("model", None, "Folder of the model.", required=True)
WORK = flags.DEFINE_string(
    "work", None, "Folder for what comes of it; best a new one.", required=True
)
SOURCE = flags.DEFINE_string("source", None, "What is learned, as data.source.", required=True)


def command(*arguments: str) -> tuple[str, float]:
    """What a command of Podium's prints, and how long it took."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {arguments[0]} did not end well: see above")
    return done.stdout, time.perf_counter() - began


def flags_of(config: Mapping[str, Any]) -> list[str]:
    """Flags that set keys of a config."""
    return [f"--config.{key}={value}" for key, value in config.items()]


def work() -> Path:
    """The folder of --work."""
    folder = Path(WORK.value).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def converted() -> Path:
    """The workdir of the model of --model, in the folder of --work."""
    base = work() / "base"
    if not base.exists():
        command("convert.py", "from-hf", MODEL.value, f"--workdir={base}")
    return base


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is in a file of JSON, made if it is not there."""
    if not path.exists():
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(make()))
        partial.replace(path)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def trained(workdir: Path, config: str, changed: Mapping[str, Any]) -> float:
    """Trains to the end, unless that was done, and says how many seconds the command took."""

    def train() -> dict[str, Any]:
        if workdir.exists():
            print(f"{workdir.name} was interrupted: its seconds are those since", file=sys.stderr)
        start = ("train.py", f"--config=configs/{config}", f"--workdir={workdir}")
        return {"seconds": command(*start, *flags_of(changed))[1]}

    seconds: float = kept(workdir.with_name(f"{workdir.name}.trained.json"), train)["seconds"]
    return seconds
