"""data.prepare and data.inspect, on the data of a run."""

import re
from pathlib import Path

import pytest

from tests.running import ROOT, Commands

MIXED = "--config=tests/commands/mixed.py"


@pytest.fixture(scope="module")
def prepared(podium: Commands, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """The commands with a cache that holds the data of the run, and nothing else."""
    cache = tmp_path_factory.mktemp("cache")
    commands = podium.with_env({"PODIUM_CACHE": str(cache)})
    done = commands("-m", "data.prepare", MIXED)
    assert done.returncode == 0, done.stderr
    return commands


def stores(commands: Commands) -> list[Path]:
    return sorted((Path(commands.env["PODIUM_CACHE"]) / "stores").iterdir())


def test_a_second_preparation_builds_nothing(prepared: Commands) -> None:
    before = {path: path.stat().st_mtime_ns for path in stores(prepared)}
    done = prepared("-m", "data.prepare", MIXED, "--verify")
    assert done.returncode == 0, done.stderr
    assert "tokenizing" not in done.stderr and "every file checked" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in stores(prepared)}
    for path in stores(prepared):
        assert str(path) in done.stdout


def test_damage_is_named_and_mended_on_request(prepared: Commands) -> None:
    damaged = stores(prepared)[0] / "tokens-00000.bin"
    content = bytearray(damaged.read_bytes())
    content[7] ^= 1
    damaged.write_bytes(content)
    done = prepared("-m", "data.prepare", MIXED)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"error: {damaged} ")
    done = prepared("-m", "data.prepare", MIXED, "--rebuild", "--verify")
    assert done.returncode == 0, done.stderr
    content[7] ^= 1
    assert damaged.read_bytes() == content


SMALL = """
import commands
from data import checksums, prepare
checksums._AT_ONCE = 0  # as if all files were large
commands.run(prepare.main, required=("config",))
"""


def test_verify_reads_the_plans_too(prepared: Commands) -> None:
    damaged = next((Path(prepared.env["PODIUM_CACHE"]) / "plans").rglob("start.npy"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-8] + bytes([content[-8] ^ 1]) + content[-7:])
    done = prepared("-c", SMALL, MIXED)
    assert done.returncode == 0, done.stderr
    done = prepared("-c", SMALL, MIXED, "--verify")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {damaged} is not what was written: ")
    damaged.write_bytes(content)


def test_a_row_is_shown_with_what_it_is_of(prepared: Commands) -> None:
    done = prepared("-m", "data.inspect", MIXED, "--step=7", "--row=3", "--width=0")
    assert done.returncode == 0, done.stderr
    head, _, *rest = done.stdout.splitlines()
    assert head == "step 7: 24 rows of 32 tokens"
    assert rest[0] == "row 3: 0 tokens predicted of 0 bytes of text"  # it is left out
    corpora = {"docs": "docs", "model": "model", "launch": "sharding"}
    piece = re.compile(
        r"  \[(\d+):(\d+)\] (\w+), epoch (\d+): '(.*)', tokens (\d+) to (\d+) of (\d+), "
        r"bytes (\d+) to (\d+)"
    )
    found = [m for line in rest if (m := piece.fullmatch(line))]
    assert found
    for match in found:
        file = ROOT / corpora[match[3]] / match[5]
        text = file.read_bytes()[int(match[9]) : int(match[10])].decode(errors="replace")
        shown = done.stdout.split(match[0] + "\n", 1)[1].split("\n  [", 1)[0]
        lines = [line.removeprefix("    | ") for line in shown.splitlines()]
        assert lines == text.splitlines()


def test_find_and_step_tell_the_same(prepared: Commands) -> None:
    done = prepared("-m", "data.inspect", MIXED, "--find=architecture.md")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"step (\d+), row (\d+) \(epoch (\d+)\)", done.stdout)
    assert f"rows of 12 steps that show some of it: {len(rows)}" in done.stdout and rows
    for step in (1, 7, 10):
        shown = prepared("-m", "data.inspect", MIXED, f"--step={step}").stdout
        parts = re.split(r"\nrow (\d+): ", shown)
        with_it = [
            number
            for number, text in zip(parts[1::2], parts[2::2], strict=True)
            if "'architecture.md'" in text
        ]
        assert with_it == [row for at, row, _ in rows if at == str(step)]


def test_statistics(prepared: Commands) -> None:
    done = prepared("-m", "data.inspect", MIXED, "--stats")
    assert done.returncode == 0, done.stderr
    for name in ("docs", "model", "launch"):
        assert re.search(rf"^{name} +[\d,]+ +[\d.]+% +[\d.]+% +[\d.]+$", done.stdout, re.M)
    assert "after step 5: 24 x 32 tokens" in done.stdout
    assert "best_fit into" in done.stdout


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "give one of --step=N, --find=DOCUMENT and --stats"),
        (["--stats", "--step=1"], "give one of --step=N, --find=DOCUMENT and --stats"),
        (["--row=1", "--stats"], "--row needs --step=N"),
        (["--step=6", "--row=24"], "--row=24: step 6 has rows 0 to 23"),
        (["--find=nothing.md"], "no document 'nothing.md' in files:docs/*.md"),
    ],
)
def test_what_cannot_be_shown(prepared: Commands, flags: list[str], line: str) -> None:
    done = prepared("-m", "data.inspect", MIXED, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1


def test_what_never_comes_is_said(prepared: Commands) -> None:
    late = ("--config.data.stages.docs.after_step=12", "--config.data.skip=('4','13:2')")
    done = prepared("-m", "data.inspect", MIXED, "--stats", *late)
    assert done.returncode == 0, done.stderr
    assert "note: data.stages.docs is beyond the last step, 12" in done.stdout
    assert "note: data.skip '13:2' is beyond the last step, 12" in done.stdout
    assert "data.skip '4'" not in done.stdout
    done = prepared("-m", "data.inspect", MIXED, "--step=13", "--row=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("note: the run ends with step 12\n")
