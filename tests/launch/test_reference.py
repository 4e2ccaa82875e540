"""`make parity` makes .venv-reference once, by pip alone, and starts afresh if interrupted."""

import os
import subprocess

import pytest

from tests.running import ROOT

# Stands in for an interpreter: makes an empty .venv-reference, and notes what it is to install.
PYTHON = """#!/bin/sh
case $2 in
  venv) mkdir -p .venv-reference/bin; touch .venv-reference/bin/python; echo venv >> installed ;;
  pip) for last; do :; done; [ ! -f broken ] || exit 1; basename "$last" .txt >> installed ;;
esac
"""
ALL = ["venv", "build", "cpu", "dev", "reference"]


@pytest.fixture
def reference(tmp_path):
    (tmp_path / "requirements").mkdir()
    for file in (ROOT / "requirements").iterdir():
        (tmp_path / "requirements" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)

    def run():
        """What was done, and whether it went well."""
        done = subprocess.run(
            ["sh", "requirements/reference.sh"],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": "./python"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        log = tmp_path / "installed"
        installed = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return installed, done.returncode == 0

    return tmp_path, run


def test_once(reference):
    _, run = reference
    assert run() == (ALL, True)
    assert run() == ([], True)


def test_anew_when_a_pin_changes(reference):
    folder, run = reference
    run()
    with (folder / "requirements" / "reference.txt").open("a") as file:
        file.write("more==1\n")
    assert run() == (ALL, True)


def test_afresh_after_it_failed(reference):
    folder, run = reference
    (folder / "broken").touch()
    assert run() == (["venv"], False)
    (folder / "broken").unlink()
    assert run() == (ALL, True)


def test_what_is_compared_with_is_pinned():
    lines = (ROOT / "requirements" / "reference.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    names = [line.partition("==")[0] for line in pinned]
    assert names == ["torch", "transformers", "peft", "trl", "gguf"]
    assert all(line.count("==") == 1 for line in pinned)
