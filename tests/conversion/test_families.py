"""Every family through the conversion: from a checkpoint onto a mesh, and back to the bit.

What the numbers ought to be is what tests/families.py makes of whole tensors, from whose parameters
the decoder gives the logits of `transformers` (tests/model/families/).
"""

from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from conversion import exporting, formats, pieces, reading, safetensors_files
from model import parameters
from model.families import FAMILIES
from sharding.config import MeshConfig
from sharding.means import means
from sharding.mesh import make_mesh
from tests.conversion.models import write
from tests.families import config_of, golden, to_params
from training.fields import flat
from training.state import abstract_params

MESH = MeshConfig(data=2, fsdp=2, tensor=2)
JOB = SimpleNamespace(
    watch=SimpleNamespace(at=lambda what, bound: None, bounds=SimpleNamespace(step=1.0))
)


ORDINARY = ("llama", "gpt_oss")  # plain, interleaved


@pytest.mark.parametrize(
    "name",
    [name if name in ORDINARY else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_there_and_back(name, tmp_path, monkeypatch):
    """In parts of less than a row of most weights, and in one file after the other."""
    monkeypatch.setattr(reading, "PART_BYTES", 300)
    there = golden(name)
    tensors = {key: value.astype(ml_dtypes.bfloat16) for key, value in there.tensors().items()}
    family, config, _ = config_of(there.config)
    assert exporting.differences(family, config) == []

    mesh = make_mesh(MESH)
    outline = parameters.outline(config, means(mesh, config, MESH))
    folder = write(tmp_path / "theirs", there.config, tensors, files=2)
    found = formats.weights(safetensors_files.find(folder), {})
    wanted = pieces.pieces(family, outline)
    shapes = {key: tensor.shape for key, tensor in found.items()}
    matched = pieces.match(wanted, shapes, there.config, family.PREFIX)
    abstract = abstract_params(outline, mesh)
    params = reading.read(wanted, matched, found, abstract, lambda done, total: None)

    floats = {key: value.astype(np.float32) for key, value in tensors.items()}
    expected = flat(to_params(family, config, floats))
    ours = flat(params)
    assert ours.keys() == expected.keys()
    for path, leaf in flat(abstract).items():
        assert ours[path].sharding == leaf.sharding
        np.testing.assert_array_equal(np.asarray(ours[path]), expected[path], err_msg=path)

    trained = SimpleNamespace(outline=outline, params=params)
    (out := tmp_path / "out").mkdir()
    exporting._write_weights(JOB, trained, family, out, "bfloat16", {}, 4e3)
    back = [load_file(file) for file in sorted(out.glob("*.safetensors"))]
    assert len(back) > 2
    merged = {key: value for one in back for key, value in one.items()}
    assert merged.keys() == tensors.keys()
    for key, value in tensors.items():
        assert merged[key].tobytes() == value.tobytes(), key
