"""Checkpoints: any mesh reads them, the newest stay, incomplete ones do not count."""

import jax
import numpy as np
import pytest

from checkpointing.checkpoints import Checkpoints
from errors import UserError
from tests.training.sharded import begin, host, mesh_of


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


def test_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert checkpoints.latest() is None
    with pytest.raises(UserError, match=r"no checkpoint in .*: train.py --workdir="):
        checkpoints.resolve(None)
    checkpoints.close()


def test_an_incomplete_save_does_not_count(tmp_path):
    left = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp"
    left.mkdir(parents=True)
    assert Checkpoints(tmp_path).latest() is None
    checkpoints = Checkpoints(tmp_path, keep=1)
    assert checkpoints.latest() is None
    assert not left.exists()
    checkpoints.close()
