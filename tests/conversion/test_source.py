"""What is converted: a folder, or a model of the hub."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from conversion import safetensors_files, source
from errors import UserError
from tests.conversion.models import LLAMA, weights, write


def test_a_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    found = source.find(str(tmp_path))
    assert (found.folder, found.hf, found.text, found.quantization) == (tmp_path, LLAMA, LLAMA, {})


def test_the_text_part_and_its_form():
    inner = {"a": 1, "quantization_config": {"quant_method": "fp8"}}
    found = source.Source("x", Path(), {"text_config": inner})
    assert found.text == inner
    assert found.quantization == {"quant_method": "fp8"}


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "has no config.json"), ("{", "is damaged"), ("[]", "is damaged")],
)
def test_a_folder_that_is_none(tmp_path, content, says):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=says):
        source.find(str(tmp_path))


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"give a folder with config.json, or an id of the hub"):
        source.find(str(tmp_path / "none"))


def test_a_model_of_the_hub(tmp_path, monkeypatch):
    """What is asked of the hub's own library, and what becomes of its answer."""
    import huggingface_hub

    asked = []

    def download(name, **how):
        asked.append((name, how["revision"]))
        assert "*.safetensors" in how["allow_patterns"]
        assert not any(".bin" in pattern for pattern in how["allow_patterns"])
        folder = tmp_path / "abc123"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(LLAMA))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert source.find("org/model").name == "org/model@abc123"
    assert source.find("org/model@v2").folder == tmp_path / "abc123"
    assert asked == [("org/model", None), ("org/model", "v2")]

    def fail(name, **how):
        raise OSError("no such model\nTraceback")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"^org/model cannot be had from the hub: no such model$"):
        source.find("org/model")


def test_without_the_hub_s_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", ModuleType("huggingface_hub"))
    with pytest.raises(UserError, match="need the package huggingface_hub: `make setup HF=1`"):
        source.find("org/model")


def test_a_fingerprint_is_of_config_and_weights(tmp_path):
    def of(hf, seed):
        folder = write(tmp_path / str(len(list(tmp_path.iterdir()))), hf, weights(seed=seed))
        return source.find(str(folder)).fingerprint(safetensors_files.find(folder))

    prints = [of(LLAMA, 0), of(LLAMA, 0), of(LLAMA, 1), of(LLAMA | {"x": 1}, 0)]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3
