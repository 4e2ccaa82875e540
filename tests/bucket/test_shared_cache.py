"""What one machine built another fetches and checks."""

import json

import pytest

from data import cache
from errors import UserError
from tests.running import Commands


@pytest.fixture
def machines(folder, tmp_path, monkeypatch):
    """Goes to a machine, by name: each has a home of its own, and one cache in the bucket."""
    monkeypatch.setenv("PODIUM_CACHE", str(folder))

    def go_to(name: str):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return cache.root() / "stores" / "abc"

    return go_to


def test_what_one_built_another_has(machines):
    here = machines("one")
    assert not cache.has(here)
    with cache.publish(here) as building:
        (building / "sub").mkdir()
        (building / "a.bin").write_bytes(b"\x00\x01" * 1000)
        (building / "sub" / "b.txt").write_text("é")
    there = machines("two")
    assert there != here and not there.exists()
    assert cache.has(there)
    assert (there / "a.bin").read_bytes() == b"\x00\x01" * 1000
    assert (there / "sub" / "b.txt").read_text() == "é"


def test_what_was_built_and_not_published_is_published_later(machines, monkeypatch):
    here = machines("one")
    with monkeypatch.context() as killed:  # before it came to the bucket
        killed.setattr("data.cache.shared_cache.publish", lambda built, shared: None)
        with cache.publish(here) as building:
            (building / "a.bin").write_bytes(b"whole")
    assert not cache.has(machines("two"))
    assert cache.has(machines("one"))
    assert cache.has(machines("two"))


def test_an_incomplete_copy_does_not_count(machines, folder):
    machines("one")
    (folder / "stores" / "abc" / "a.bin").write_bytes(b"half")
    assert not cache.has(machines("two"))


def test_a_damaged_copy_is_refused(machines, folder):
    with cache.publish(machines("one")) as building:
        (building / "a.bin").write_bytes(b"whole")
    (folder / "stores" / "abc" / "a.bin").write_bytes(b"hole!")
    there = machines("two")
    with pytest.raises(UserError, match=r"abc/a\.bin is damaged: delete the folder gs://"):
        cache.has(there)
    assert not there.exists()


def test_other_storage_is_refused(monkeypatch):
    monkeypatch.setenv("PODIUM_CACHE", "s3://bucket/cache")
    with pytest.raises(UserError, match="PODIUM_CACHE=s3://bucket/cache: give a local directory"):
        cache.root()


@pytest.mark.slow
def test_a_second_machine_prepares_nothing(cloud: Commands, folder, tmp_path):
    told = []
    for name in ("one", "two"):
        home = {"PODIUM_CACHE": str(folder), "XDG_CACHE_HOME": str(tmp_path / name)}
        done = cloud(*cloud.train(tmp_path / f"run_{name}"), env=home)
        assert done.returncode == 0, done.stderr
        told.append(done.stderr)
    assert "tokenizing train" in told[0] and "tokenizing" not in told[1]
    stores = (tmp_path / "two" / "podium" / "stores").iterdir()
    assert {json.loads((p / "manifest.json").read_text())["split"] for p in stores} == {
        "train[:20%]",
        "validation[:10%]",
    }
