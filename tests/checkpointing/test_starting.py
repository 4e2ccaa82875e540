"""The parameters that a run starts from."""

import dataclasses

import jax
import numpy as np
import pytest

from checkpointing import imported, record, starting
from checkpointing.workdir import CONVERTING, Workdir
from configs import door
from configs.base import base
from errors import UserError
from model import parameters
from sharding.config import MeshConfig
from sharding.layer_order import LayerOrder
from sharding.means import means
from sharding.mesh import make_mesh
from tests.training.sharded import MODEL
from training.state import abstract_params
from training.tuning import TuningConfig

CONFIG = dataclasses.replace(
    door.read(base(), "cpu"), model=dataclasses.replace(MODEL, num_layers=4)
)


@pytest.fixture
def source(tmp_path):
    """A workdir with a model, its record and its parameters."""
    workdir = Workdir(str(tmp_path / "source"))
    workdir.local.mkdir()
    params = jax.jit(lambda: parameters.initialize(CONFIG.model, 3))()
    saved = record.Record(CONFIG, "none", "none", imported=True)
    imported.publish(workdir.path, params, saved.to_dict())
    return workdir, saved, jax.tree.map(np.asarray, params)


def test_layers_lie_as_the_run_has_them(source):
    """Two stages, two rounds: of four layers the first stage has 0 and 2, the second 1 and 3."""
    workdir, saved, params = source
    start = starting.find(str(workdir))
    assert (start.step, start.record) == (0, saved)
    layout = MeshConfig(data=1, fsdp=2, tensor=2, pipeline=2, rounds=2)
    mesh = make_mesh(layout)
    outline = parameters.outline(CONFIG.model, means(mesh, CONFIG.model, layout))
    order = LayerOrder(mesh, layout.rounds, None)
    found = starting.take(start, outline, abstract_params(outline, mesh), order)
    where = jax.tree.map(lambda x: x.sharding, found)
    assert where == jax.tree.map(lambda x: x.sharding, abstract_params(outline, mesh))
    np.testing.assert_array_equal(found["embedding"], params["embedding"])
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(np.asarray(x), y[[0, 2, 1, 3]]),
        found["blocks"],
        params["blocks"],
    )


def test_what_did_not_move_may_be_elsewhere(source, tmp_path):
    """A run that moves one array, of a base whose folder got another name."""
    workdir, saved, params = source
    own = {"final_norm": {"scale": jax.numpy.full_like(params["final_norm"]["scale"], 3)}}
    config = dataclasses.replace(
        CONFIG,
        tuning=TuningConfig(moving=("final_norm.scale",)),
        train=dataclasses.replace(CONFIG.train, start_from=str(workdir)),
    )
    run = Workdir(str(tmp_path / "run"))
    tuned = record.Record(config, "s", "d", began=saved.identity())
    imported.publish(run.path, own, tuned.to_dict())
    start = starting.find(str(run))
    mesh = make_mesh(MeshConfig())
    abstract = abstract_params(parameters.outline(CONFIG.model), mesh)
    expected = params | own
    jax.tree.map(np.testing.assert_array_equal, starting.whole(start, abstract), expected)

    moved = str(tmp_path / "moved")
    workdir.local.rename(moved)
    with pytest.raises(UserError, match=r"no such directory; if it is elsewhere: --base=WORKDIR"):
        starting.whole(start, abstract)
    jax.tree.map(np.testing.assert_array_equal, starting.whole(start, abstract, moved), expected)
    with pytest.raises(UserError, match=rf"run was tuned from another model than {run} has now"):
        starting.whole(start, abstract, str(run))
    with pytest.raises(UserError, match=r"^--base=none: there is no such directory"):
        starting.whole(start, abstract, "none")
    with pytest.raises(UserError, match=r"moved has all parameters of its model: leave --base out"):
        starting.whole(starting.find(moved), abstract, str(run))


def test_nothing_to_start_from(tmp_path):
    with pytest.raises(UserError, match=r"config.train.start_from=.*: there is no such directory"):
        starting.find(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"config.train.start_from=.*: no checkpoint is there"):
        starting.find(str(tmp_path))
    with pytest.raises(UserError, match=r"^config.train.start_from=s3://x/y: a run cannot"):
        starting.find("s3://x/y")


def test_a_converted_model_is_not_trained_in_its_place(source):
    workdir, saved, _ = source
    starting.check(workdir)  # no run.json yet: nothing is known of it
    workdir.write_run(saved.to_dict())
    with pytest.raises(UserError, match=r"has a converted model: train from it by --config.train"):
        starting.check(workdir)
    (workdir.path / CONVERTING).write_text("")
    with pytest.raises(UserError, match="was interrupted: give its command again"):
        starting.check(workdir)


def test_what_was_published_comes_along(tmp_path):
    source, run = (Workdir(str(tmp_path / name)) for name in ("source", "run"))
    for name in ("config.json", "tokenizer.json"):
        (source.local / "hf").mkdir(parents=True, exist_ok=True)
        (source.local / "hf" / name).write_text(name)
    run.local.mkdir()
    start = starting.Start(source, 0, record.Record(CONFIG, "none", "none"))
    starting.carry(start, run, same_tokenizer=False)
    assert [p.name for p in (run.local / "hf").iterdir()] == ["config.json"]
    starting.carry(start, run, same_tokenizer=True)
    assert (run.local / "hf" / "tokenizer.json").read_text() == "tokenizer.json"
