"""Checkpoints: any mesh reads them, the newest stay, incomplete ones do not count."""

import asyncio
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.path import atomicity

from checkpointing.checkpoints import Checkpoints
from errors import UserError
from tests.training.sharded import begin, host, mesh_of
from training.fields import flat


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("checkpoints")
    run = begin(mesh_of(2, 2, 2))
    checkpoints = Checkpoints(workdir, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, run.state, {"step": step, "config": {"prompts": ["é"]}})
    checkpoints.wait()
    checkpoints.close()
    return workdir, host(run.state)


def test_the_newest_stay(saved):
    workdir, _ = saved
    checkpoints = Checkpoints(workdir)
    assert checkpoints.latest() == checkpoints.resolve(None) == 3
    assert checkpoints.resolve(2) == 2
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "3"]
    with pytest.raises(UserError, match=r"no checkpoint of step 1 in .*; it has 2, 3"):
        checkpoints.resolve(1)
    assert checkpoints.run(2) == {"step": 2, "config": {"prompts": ["é"]}}
    checkpoints.close()


@pytest.mark.parametrize("sizes", [(1, 1, 1), (1, 8, 1), (1, 1, 8)])
def test_another_mesh_reads_them(saved, sizes):
    workdir, state = saved
    abstract = begin(mesh_of(*sizes)).abstract
    checkpoints = Checkpoints(workdir)
    restored = checkpoints.state(3, abstract)
    params = checkpoints.params(3, abstract.params)
    checkpoints.close()
    assert int(restored.step) == 3
    for found, expected in ((restored.params, state.params), (params, state.params)):
        jax.tree.map(np.testing.assert_array_equal, host(found), expected)
    jax.tree.map(np.testing.assert_array_equal, host(restored.opt_state), state.opt_state)
    for leaf, like in zip(jax.tree.leaves(params), jax.tree.leaves(abstract.params), strict=True):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)


def test_parameters_that_are_not_there_are_named(saved):
    workdir, _ = saved
    abstract = begin(mesh_of()).abstract.params
    some = {"final_norm": abstract["final_norm"]}
    with Checkpoints(workdir) as checkpoints:
        assert flat(checkpoints.params(3, some)).keys() == {"final_norm.scale"}
        more = some | {"norm": {"a": abstract["embedding"], "b": abstract["embedding"]}}
        with pytest.raises(UserError, match=r"of step 3 in .* has no norm.a, norm.b: it is of"):
            checkpoints.params(3, more)


def test_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert checkpoints.latest() is None
    with pytest.raises(UserError, match=r"no checkpoint in .*: train.py --workdir="):
        checkpoints.resolve(None)
    checkpoints.close()


def gone(path: Path) -> bool:
    """Whether it is away within a few seconds: Orbax cleans in the background."""
    for _ in range(500):
        if not path.exists():
            return True
        time.sleep(0.01)
    return False


def test_what_a_killed_save_leaves_is_no_checkpoint_and_is_cleaned(tmp_path):
    left = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp" / "params"
    left.mkdir(parents=True)
    (left / "manifest.ocdbt").write_bytes(b"half")
    reader = Checkpoints(tmp_path)
    assert reader.latest() is None
    assert left.exists()  # who only reads leaves it: its writer may be alive
    reader.close()
    writer = Checkpoints(tmp_path, keep=1)
    assert writer.latest() is None
    assert gone(left.parent)
    writer.close()


def test_an_old_checkpoint_that_was_half_deleted_is_cleaned(tmp_path):
    """A kill while an old one was being deleted: it keeps its name, but not all of its files."""
    run = begin(mesh_of())
    writer = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        writer.save(step, run.state, {"step": step})
    writer.close()
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "params")
    again = Checkpoints(tmp_path, keep=2)
    assert again.latest() == 2
    again.save(3, run.state, {"step": 3})
    again.close()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
    reader = Checkpoints(tmp_path)
    restored = reader.state(2, run.abstract)
    reader.close()
    jax.tree.map(np.testing.assert_array_equal, host(restored.params), host(run.state.params))


def slow_rename(then: Exception | None = None):
    """Stands for the renaming that ends a save, on a slow disk, or on a full one."""

    async def rename(source: Path, target: Path) -> None:
        await asyncio.sleep(0.5)
        if then is not None:
            raise then
        Path(source).rename(target)

    return rename


def test_an_error_elsewhere_waits_for_the_save_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(atomicity.async_path, "rename", slow_rename())
    state = begin(mesh_of(1, 1, 1)).state
    with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {})
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


def test_an_error_of_the_save_itself_does_not_hide_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(atomicity.async_path, "rename", slow_rename(OSError("disk full")))
    state = begin(mesh_of(1, 1, 1)).state
    with pytest.raises(ZeroDivisionError), Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {})
        raise ZeroDivisionError
    with pytest.raises(OSError, match="disk full"), Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, state, {})
    assert Checkpoints(tmp_path).latest() is None
