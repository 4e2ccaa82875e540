"""The files that start runs elsewhere, as far as they can be tried here."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.running import ROOT, wait_for

LAUNCH = ROOT / "launch"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder whose .venv/bin/python stands for train.py, and does as $DOES says."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/sh\n"
        f'[ "$1" != -c ] || exec {sys.executable} "$@"\n'
        'echo "$*" > arguments\n'
        "case $DOES in\n"
        "  whole) touch run/report.html ;;\n"
        "  fail) exit 2 ;;\n"
        "  wait) trap 'exit 0' TERM; touch ready; while :; do sleep 0.05; done ;;\n"
        "esac\n"
    )
    python.chmod(0o755)
    (tmp_path / "run").mkdir()
    return tmp_path


def until_done(checkout: Path, does: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["sh", str(LAUNCH / "until_done.sh"), "run", "--config=x"],
        cwd=checkout,
        env={**os.environ, "DOES": does},
        text=True,
    )


@pytest.mark.parametrize(("does", "code"), [("whole", 0), ("fail", 2), ("stop", 75)])
def test_the_exit_code_says_whether_the_run_is_whole(checkout: Path, does: str, code: int) -> None:
    assert until_done(checkout, does).wait(60) == code
    arguments = (checkout / "arguments").read_text().split()
    assert arguments == ["train.py", "--distributed", "--workdir=run", "--config=x"]


def test_a_signal_is_passed_on(checkout: Path) -> None:
    process = until_done(checkout, "wait")
    wait_for(lambda: (checkout / "ready").exists(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75


@pytest.mark.parametrize("name", ["tpu_vm.sh", "until_done.sh", "slurm.sbatch"])
def test_scripts_are_sound_shell(name: str) -> None:
    subprocess.run(["sh", "-n", str(LAUNCH / name)], check=True)


def test_the_pods_are_the_chips_of_the_slice() -> None:
    (job,) = yaml.safe_load((LAUNCH / "gke_tpu.yaml").read_text())["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert spec["parallelism"] == spec["completions"]
    assert spec["parallelism"] * chips == math.prod(int(side) for side in topology.split("x"))


def test_a_slice_is_asked_for_and_given_back(tmp_path: Path) -> None:
    """Against a gcloud that notes what it is asked."""
    gcloud = tmp_path / "gcloud"
    gcloud.write_text(
        '#!/bin/sh\necho "$*" >> asked\ncase "$*" in *describe*) echo ACTIVE ;; esac\n'
    )
    gcloud.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BUCKET": "b", "TPU": "t", "ZONE": "z"}
    for command in ("create", "start", "stop", "delete"):
        script = ["sh", str(LAUNCH / "tpu_vm.sh"), command]
        subprocess.run(script, cwd=tmp_path, env=env, check=True, capture_output=True)
    asked = (tmp_path / "asked").read_text()
    assert "queued-resources create t --node-id=t --zone=z --accelerator-type=" in asked
    assert "tpu-vm ssh t --zone=z --worker=all --command=cd podium" in asked
    assert "train.py --distributed" in asked and "--workdir=gs://b/runs/t" in asked
    assert "--worker=0 --command=kill -TERM" in asked
    assert "queued-resources delete t --zone=z --force" in asked
