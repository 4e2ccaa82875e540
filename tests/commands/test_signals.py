"""Ctrl-C and SIGTERM at any moment: save what can be saved, lose nothing, end within seconds."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.running import ROOT, Commands, assert_same_run, metrics, wait_for

BOTH = pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
PROMPT_S = 20  # a notice of pre-emption gives 30


def lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def saved_steps(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


class Listener:
    """Reads what a process says while it runs."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process, self.text = process, ""
        assert process.stderr is not None
        self._thread = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._thread.start()

    def _read(self, stream) -> None:
        for line in stream:
            self.text += line

    def hear(self, words: str) -> None:
        wait_for(lambda: words in self.text, self.process)
        assert words in self.text, self.text

    def end(self) -> str:
        self.process.wait(PROMPT_S)
        self._thread.join(5)
        return self.text


@BOTH
def test_in_the_loop_the_step_is_saved_and_the_run_goes_on(
    podium: Commands, finished, tmp_path, number
):
    workdir = tmp_path / "run"
    process = podium.start(*podium.train(workdir))
    wait_for(lambda: lines(workdir) > 1, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=PROMPT_S)
    assert process.returncode == 0, err
    assert f"stopped by {number.name}; step" in err, "signalled too late"
    assert "The same command goes on from there." in err
    assert saved_steps(workdir)[-1] == max(line["step"] for line in metrics(workdir)) < 12
    again = podium(*podium.train(workdir))
    assert again.returncode == 0, again.stderr
    assert_same_run(workdir, finished)


@pytest.mark.slow
def test_in_an_evaluation_the_step_before_it_is_saved(podium: Commands, tmp_path):
    workdir = tmp_path / "run"
    args = podium.train(
        workdir,
        "--config.train.steps=100",
        "--config.evaluation.every=3",
        "--config.evaluation.batch_size=1",
        "--config.evaluation.stride=1",
        "--config.data.eval_split=validation",
        "--config.evaluation.max_tokens=1000000",
        "--config.model.mlp_dim=16384",
    )
    process = podium.start(*args)
    wait_for(lambda: lines(workdir) >= 3, process)
    time.sleep(0.3)  # it has begun, and takes many seconds: thousands of windows, wide layers
    assert lines(workdir) == 3
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PROMPT_S)
    assert process.returncode == 0, err
    assert "stopped by SIGTERM; step 3 is saved." in err
    assert "held-out loss" not in err
    assert not any("eval/loss" in line for line in metrics(workdir))


@BOTH
@pytest.mark.parametrize("words", ["compiling the step", "evaluating the whole held-out split"])
def test_where_nothing_is_to_be_saved_it_ends_and_says_so(
    podium: Commands, finished, tmp_path, words, number
):
    workdir = tmp_path / "run"
    listener = Listener(podium.start(*podium.train(workdir), env={"PYTHONUNBUFFERED": "1"}))
    listener.hear(words)
    listener.process.send_signal(number)
    err = listener.end()
    assert listener.process.returncode == 128 + number
    assert f"error: stopped by {number.name} while " in err
    assert "Traceback" not in err
    again = podium(*podium.train(workdir))
    assert again.returncode == 0, again.stderr
    assert_same_run(workdir, finished)


@BOTH
def test_in_the_preparation(podium: Commands, tmp_path, number):
    args = podium.train(tmp_path / "run", "--config.data.source=python_stdlib")
    args = [a for a in args if "data_dir" not in a]
    env = {"PODIUM_CACHE": str(tmp_path / "cache")}
    listener = Listener(podium.start(*args, env=env))
    listener.hear("tokenizing train")
    listener.process.send_signal(number)
    err = listener.end()
    assert listener.process.returncode == 128 + number
    assert f"error: stopped by {number.name} while preparing the data" in err
    stores = tmp_path / "cache" / "stores"
    assert list(stores.glob("[!.]*")) == []  # nothing half-built is taken for whole


@BOTH
def test_at_the_very_start(podium: Commands, tmp_path, number):
    process = podium.start(*podium.train(tmp_path / "run"))
    time.sleep(0.3)  # Python still reads its libraries
    process.send_signal(number)
    process.communicate(timeout=PROMPT_S)
    assert process.returncode != 0


COMMANDS = (
    ["train.py"],
    ["eval.py"],
    ["generate.py"],
    ["-m", "data.prepare"],
    ["-m", "data.inspect"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_while_libraries_are_read_ctrl_c_is_not_lost(command: list[str], tmp_path: Path) -> None:
    """Python's handler raises, and what is raised in a callback of JAX is printed and ignored."""
    stand_in = "import signal, sys; sys.exit(str(signal.getsignal(signal.SIGINT)))"
    (tmp_path / "jax.py").write_text(stand_in)
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.strip() == str(signal.SIG_DFL)
