"""What a run ran on, told truthfully."""

import os
import subprocess
from pathlib import Path

import jax
import pytest

from reporting.environment import commit, describe, versions


def git(folder: Path, *command: str) -> str:
    author = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    run = ["git", "-C", str(folder), *author, *command]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1\n")
    (tmp_path / ".gitignore").write_text("runs/\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    return tmp_path


def test_the_commit_of_a_clean_checkout(checkout: Path) -> None:
    (checkout / "runs").mkdir()
    (checkout / "runs" / "metrics.jsonl").touch()
    assert commit(checkout / "code") == git(checkout, "rev-parse", "HEAD")[:12]


@pytest.mark.parametrize("change", ["code/a.py", "code/new.py", "new.py", ".gitignore"])
def test_changes_are_said(change: str, checkout: Path) -> None:
    (checkout / change).write_text("2\n")
    assert commit(checkout / "code") == git(checkout, "rev-parse", "HEAD")[:12] + " and changes"


def test_the_checkout_is_left_alone(checkout: Path) -> None:
    """Git writes its index anew where a file was touched, and a run may be killed meanwhile."""
    os.utime(checkout / "code" / "a.py", (1, 1))
    before = (checkout / ".git" / "index").read_bytes()
    assert commit(checkout / "code") == git(checkout, "rev-parse", "HEAD")[:12]
    assert (checkout / ".git" / "index").read_bytes() == before


def test_code_that_is_not_of_the_checkout_it_lies_in(checkout: Path) -> None:
    (checkout / "runs").mkdir()
    (checkout / "runs" / "a.py").touch()
    assert commit(checkout / "runs") == "unknown"


def test_without_a_checkout_or_without_git(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(elsewhere.parent))
    assert commit(elsewhere) == "unknown"
    monkeypatch.setenv("PATH", "")
    assert commit(checkout / "code") == "unknown"


def test_the_description() -> None:
    found = describe()
    assert found["devices"] == f"{jax.device_count()} x cpu"
    assert found["jax"] == jax.__version__ and found["commit"] == commit()
    assert versions().items() - found.items() == {("the kind of device", "cpu")}
