"""A trained model out of a workdir, whatever version saved it and whatever mesh reads it."""

import dataclasses

import jax
import numpy as np
import pytest

from checkpointing import record
from checkpointing.checkpoints import Checkpoints
from checkpointing.workdir import Workdir
from configs import door
from configs.base import base
from data.tokenizer import ByteTokenizer
from errors import UserError
from evaluation.trained import load, parse_mesh, tokenizer_of
from sharding.config import MeshConfig
from tests.training.sharded import MODEL, begin, host, mesh_of
from training.config import EvaluationConfig

ROWS = 12  # no multiple of eight


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with a checkpoint whose record has a key too many and one too few."""
    config = dataclasses.replace(
        door.read(base(), "cpu"), model=MODEL, evaluation=EvaluationConfig(batch_size=ROWS)
    )
    plain = record.Record(config, "stream", "dataset", step=3, tokens=99).to_dict()
    del plain["config"]["optimizer"]["eps"]
    plain["config"]["optimizer"]["flavor"] = "sweet"
    workdir = tmp_path_factory.mktemp("trained")
    run = begin(mesh_of())
    checkpoints = Checkpoints(workdir, keep=1)
    checkpoints.save(3, run.state, plain)
    checkpoints.close()
    return Workdir(str(workdir)), config, host(run.state.params)


def test_it_is_read_with_its_record(saved, capsys):
    workdir, config, params = saved
    trained = load(workdir, None, MeshConfig(data=2, fsdp=2, tensor=2), rows=0)
    assert (trained.step, trained.config, trained.record.dataset) == (3, config, "dataset")
    jax.tree.map(np.testing.assert_array_equal, host(trained.params), params)
    assert capsys.readouterr().err == (
        f"note: {workdir} was saved with optimizer.flavor='sweet', which this version does not "
        "have: ignored\n"
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (0, r"does not divide 12, the batch dimension of the run's evaluation.batch_size \(see --"),
        (20, "does not divide 20, the batch dimension of --batch_size"),
    ],
)
def test_a_batch_that_the_mesh_does_not_divide(saved, rows, says):
    with pytest.raises(UserError, match=f"^--mesh: mesh fsdp=8 {says}") as error:
        load(saved[0], None, MeshConfig(data=1, fsdp=8), rows)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "mesh"),
    [
        ("", MeshConfig(data=1)),
        ("fsdp=-1", MeshConfig(data=1, fsdp=-1)),
        ("data=2,tensor=4", MeshConfig(data=2, tensor=4)),
    ],
)
def test_a_mesh_in_a_flag(text, mesh):
    assert parse_mesh(text) == mesh


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fdsp=2", "--mesh=fdsp=2: give axes of pipeline, data, fsdp"),
        ("fsdp", "give axes of"),
        ("fsdp=--2", "give axes of"),
        ("fsdp=²", "give axes of"),
        ("fsdp=2,fsdp=4", "fsdp is given twice"),
        ("fsdp=0", "--mesh=fsdp=0: fsdp=0: give a number of devices"),
        ("fsdp=-1,data=-1", "only one axis can be -1"),
    ],
)
def test_a_mesh_that_cannot_be(text, says):
    with pytest.raises(UserError, match=says):
        parse_mesh(text)


@pytest.mark.parametrize("rows", [None, 8])
def test_only_the_batch_that_there_will_be_counts(saved, rows):
    assert load(saved[0], 3, MeshConfig(data=1, fsdp=8), rows).mesh.size == 8


def test_in_stages_to_evaluate_and_not_to_generate(saved):
    workdir, _, params = saved
    layout = MeshConfig(data=1, fsdp=4, pipeline=2)
    trained = load(workdir, 3, layout, rows=8)
    up = trained.params["blocks"]["mlp"]["up"]
    assert up.addressable_shards[0].data.shape == (1, 8, 64)
    jax.tree.map(np.testing.assert_array_equal, host(trained.params), params)
    with pytest.raises(UserError, match=r"^--mesh: pipeline=2: a token would wait in one stage"):
        load(workdir, 3, layout, rows=None)
    with pytest.raises(UserError, match=r"^--mesh: pipeline=4 does not divide 2, the layers"):
        load(workdir, 3, MeshConfig(data=1, fsdp=2, pipeline=4), rows=8)


def test_a_model_without_a_tokenizer(tmp_path):
    workdir = Workdir(str(tmp_path))
    with pytest.raises(
        UserError, match=rf"^{tmp_path} has no tokenizer, and .*: give convert.py a"
    ):
        tokenizer_of(workdir)
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    assert tokenizer_of(workdir).fingerprint == ByteTokenizer().fingerprint
