"""`make setup` makes .venv once, adds what is asked for, and starts afresh if interrupted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT

# Stands in for uv: makes an empty .venv, and notes what it is to install instead of fetching it.
UV = f"""#!/bin/sh
case $1 in
  venv) mkdir -p .venv/bin && ln -s {sys.executable} .venv/bin/python ;;
  pip) for last; do :; done; [ ! -f broken ] || exit 1; basename "$last" .txt >> installed ;;
esac
"""


class Setup:
    """requirements/setup.sh in a folder of its own, with the real locks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "requirements").symlink_to(ROOT / "requirements")
        (folder / "uv").write_text(UV)
        (folder / "uv").chmod(0o755)

    def __call__(self, *arguments: str, **variables: str) -> list[str]:
        """The locks that this call installed."""
        done = self.run(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        log = self.folder / "installed"
        installed = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        assert bool(installed) == ("Set up in" in done.stdout)
        return installed

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        ours = ("EXTRA", "FILTERS", "GCS", "HF", "PYTHON", "QUANTIZATION", "TOKENIZERS")
        inherited = {k: v for k, v in os.environ.items() if k not in ours}
        return subprocess.run(
            ["sh", "requirements/setup.sh", *arguments],
            cwd=self.folder,
            env=inherited | {"UV": str(self.folder / "uv"), "PYTHON": sys.executable} | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_a_call_that_has_nothing_to_do_does_nothing_however_often(setup):
    assert setup("dev") == ["build", "cpu", "dev"]
    for _ in range(4):
        assert setup("dev") == []
        assert setup() == []


def test_what_was_added_stays(setup):
    assert setup() == ["build", "cpu"]
    assert setup(GCS="1") == ["gcs"]
    assert setup("dev") == ["dev"]
    assert setup() == []
    assert sorted(path.stem for path in (setup.folder / ".venv/locks").iterdir()) == [
        "build",
        "cpu",
        "dev",
        "gcs",
    ]


def test_another_extra_starts_afresh_and_is_remembered(setup):
    setup()
    assert setup(EXTRA="cuda12") == ["build", "cuda12"]
    assert setup() == []


def test_an_interrupted_one_is_not_taken_for_whole(setup):
    setup()
    (setup.folder / "broken").touch()
    assert setup.run("dev").returncode != 0
    (setup.folder / "broken").unlink()
    assert setup("dev") == ["build", "cpu", "dev"]


def test_unknown_hardware_is_refused(setup):
    done = setup.run(EXTRA="rocm")
    assert done.returncode == 2
    assert done.stderr == "error: EXTRA=rocm is unknown: take cpu, cuda12, cuda13 or tpu\n"
