"""Files of safetensors: the library reads what is written, and writes what is read."""

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conversion import safetensors_files as files
from errors import UserError
from tests.conversion.models import LLAMA, weights, write

TENSORS = {
    "a": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "b": np.arange(10, dtype=np.float16),
    "c": np.arange(6).reshape(3, 2).astype(ml_dtypes.bfloat16),
    "d": np.array(3.5, np.float32),
    "e": np.arange(7, dtype=np.uint8),
}


def test_what_the_library_writes_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    found = files.find(tmp_path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        read = found[name].read()
        assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape)
        assert read.tobytes() == tensor.tobytes()
    np.testing.assert_array_equal(found["a"].read(1, 2), TENSORS["a"][1:2])
    np.testing.assert_array_equal(found["b"].read(3, 7), TENSORS["b"][3:7])
    assert found["a"].row_bytes == 48


def test_fp8_is_read(tmp_path):
    """The library's NumPy side knows no FP8: its header is written by hand, byte for byte."""
    values = np.array([[0.5, -448.0], [1.0, 2.0**-9]], ml_dtypes.float8_e4m3fn)
    entry = {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [0, 4]}
    text = json.dumps({"w": entry}).encode()
    content = len(text).to_bytes(8, "little") + text + bytes([0x30, 0xFE, 0x38, 0x01])
    (tmp_path / "model.safetensors").write_bytes(content)
    np.testing.assert_array_equal(files.find(tmp_path)["w"].read(), values)


def test_the_library_reads_what_is_written(tmp_path):
    file = tmp_path / "model.safetensors"
    tensors = {name: tensor for name, tensor in TENSORS.items() if name != "d"}
    writer = files.Writer(file, [(name, t.dtype, t.shape) for name, t in tensors.items()])
    for name, tensor in tensors.items():
        writer.write(name, tensor)
    writer.close()
    read = load_file(file)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
        assert read[name].tobytes() == tensor.tobytes()


def test_what_is_not_as_it_was_said_is_not_written(tmp_path):
    writer = files.Writer(tmp_path / "x", [("a", np.dtype(np.float32), (2,))])
    with pytest.raises(AssertionError):
        writer.write("a", np.zeros(3, np.float32))


def test_several_files_with_an_index(tmp_path):
    tensors = weights()
    found = files.find(write(tmp_path, LLAMA, tensors, files=3))
    assert len({tensor.file for tensor in found.values()}) == 3
    for name, tensor in tensors.items():
        assert found[name].read().tobytes() == tensor.tobytes()


def without(folder, name):
    (folder / name).unlink()


def short(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])


def beyond(folder, name):
    index = json.loads((folder / files.INDEX).read_text())
    index["weight_map"]["lost.weight"] = name
    (folder / files.INDEX).write_text(json.dumps(index))


def elsewhere(folder, name):
    index = json.loads((folder / files.INDEX).read_text())
    index["weight_map"]["x"] = f"../{name}"
    (folder / files.INDEX).write_text(json.dumps(index))


def garbled(folder, name):
    (folder / name).write_bytes(b"\xff" * 64)


def no_index(folder, name):
    (folder / files.INDEX).write_text("{")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (without, "is missing, which model.safetensors.index.json names"),
        (short, "ends too early: copy it again"),
        (beyond, "names lost.weight, which its files do not have"),
        (elsewhere, "names files of other folders"),
        (garbled, "is damaged, or no file of safetensors"),
        (no_index, "is damaged: copy it again"),
    ],
)
def test_damages(tmp_path, damage, says):
    write(tmp_path, LLAMA, weights(), files=2)
    damage(tmp_path, "model-00002-of-00002.safetensors")
    with pytest.raises(UserError, match=says) as error:
        files.find(tmp_path)
    assert "\n" not in str(error.value)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match=r"pytorch_model.bin, a pickle, which can run code"):
        files.find(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"has no weights: neither model.safetensors nor"):
        files.find(tmp_path)


def test_names_in_a_line():
    assert files.listed(["a", "b"]) == "a, b"
    assert files.listed(list("abcdef")) == "a, b, c, d and 2 more"
