"""Every family through convert.py's own code, and back, on one device and on several."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import commands
from checkpointing.workdir import Workdir
from cluster.coordination import OneProcess
from cluster.interrupts import Interrupts
from cluster.watch import Watch
from conversion import exporting, importing, source, verifying
from evaluation.trained import load
from model.families import FAMILIES
from sharding.config import MeshConfig
from tests.parity import theirs

MESH = MeshConfig(data=2, fsdp=2, tensor=2)


@pytest.mark.parametrize("name", FAMILIES)
def test_there_and_back(name, tmp_path, record_property):
    tensors = theirs.save(name, tmp_path / "hf", seed=3)
    workdir = Workdir(str(tmp_path / "workdir"))
    others = OneProcess()
    with Watch(others) as watch, Interrupts(watch) as interrupts:
        job = commands.Job(others, watch, interrupts)
        lock = workdir.hold()
        made = importing.convert(job, source.find(str(tmp_path / "hf")), workdir, MESH, "")
        lock.release()
        trained = load(workdir, None, MeshConfig(data=2, fsdp=4), rows=None)
        family = exporting.family_of(trained.record, "")
        out = tmp_path / "out"
        exporting.export(job, trained, workdir, out, family, "", 100e3)  # in several files
    differs = verifying.difference(tmp_path / "hf", made.outline, made.params)
    record_property("logits, converted", differs)
    assert differs < 1e-4
    back = {}
    for file in out.glob("*.safetensors"):
        back |= load_file(file)
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)
    # What transformers makes of the export is what it makes of the original.
    again = verifying.difference(out, made.outline, made.params)
    assert again == differs
