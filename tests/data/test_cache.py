import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data import cache, partial
from errors import UserError


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PODIUM_CACHE", str(tmp_path / "a"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache.root() == tmp_path / "a"
    monkeypatch.delenv("PODIUM_CACHE")
    assert cache.root() == tmp_path / "b" / "podium"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.root() == tmp_path / "home" / ".cache" / "podium"


def test_key_depends_on_names_and_values_and_not_on_order() -> None:
    assert cache.key(a=1, b="2") == cache.key(b="2", a=1)
    assert len({cache.key(a=1), cache.key(a="1"), cache.key(b=1), cache.key(a=1, b=1)}) == 4


def test_publish_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "made" / "here"
    with cache.publish(target) as building:
        (building / "sub").mkdir()
        (building / "sub" / "file").write_text("x")
        assert not target.exists()
    assert (target / "sub" / "file").read_text() == "x"
    assert [p.name for p in target.parent.iterdir()] == ["here"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), cache.publish(tmp_path / "target") as building:
        (building / "file").write_text("x")
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_builders_wins(tmp_path: Path) -> None:
    target = tmp_path / "made" / "here"
    with cache.publish(target) as slow:
        (slow / "by").write_text("slow")
        with cache.publish(target) as quick:
            (quick / "by").write_text("quick")
    assert (target / "by").read_text() == "quick"
    assert [p.name for p in target.parent.iterdir()] == ["here"]


def test_a_killed_build_never_looks_complete(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from data import cache\n"
        "with cache.publish(pathlib.Path(sys.argv[1])) as building:\n"
        "    (building / 'file').write_text('x')\n"
        "    print('building', flush=True)\n"
        "    time.sleep(60)\n"
    )
    target = tmp_path / "target"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(target)],
        stdout=subprocess.PIPE,
        cwd=Path(cache.__file__).parent.parent,
    ) as process:
        assert process.stdout and process.stdout.readline() == b"building\n"
        with cache.publish(tmp_path / "other"):  # while that one is at work
            pass
        with cache.publish(target) as building:
            assert len(list(tmp_path.glob(".target.*"))) == 2
        shutil.rmtree(target)
        os.kill(process.pid, signal.SIGKILL)
    assert not target.exists() and len(list(tmp_path.glob(".target.*"))) == 1
    with cache.publish(target) as building:
        (building / "file").write_text("y")
    assert (target / "file").read_text() == "y"
    assert list(tmp_path.glob(".*")) == []


def leftovers(target: Path) -> None:
    """What a build leaves that is killed as it publishes."""
    folder, lock = partial._made(target.parent, target.name)
    (folder / "content").mkdir()
    (folder / "content" / "file").write_text("x")
    os.close(lock)
    cache.make_folder(cache.building_folder(target))


def test_what_killed_builds_left_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    leftovers(target)
    leftovers(tmp_path / "target.of.another")
    cache.remove(target)
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 2 and all(name.startswith(".target.of.another.") for name in left)
    cache.remove(tmp_path / "target.of.another")
    with cache.publish(target):
        pass
    leftovers(target)  # of another builder, which the first one was quicker than
    assert cache.has(target)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/nope"])
def test_an_unwritable_cache_is_one_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / where / "target"
    line = rf"^cannot write the cache at {target.parent} \(.*\): point PODIUM_CACHE at .*\Z"
    assert not cache.has(target)
    with pytest.raises(UserError, match=line), cache.publish(target):
        pass
    with pytest.raises(UserError, match=line):
        cache.make_folder(target.parent)


def test_a_folder_that_is_there_but_not_to_be_written_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"^cannot write the cache at .* \(Permission denied\)"):
        cache.make_folder(tmp_path)
