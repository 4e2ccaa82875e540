"""Adapters beside `peft`: logits, gradients, and the files that both read."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load_file, save_file

from checkpointing.record import Record
from conversion import adapters, exporting
from data.config import DataConfig
from evaluation.trained import Trained
from model import adapters as ours_of
from model import parameters
from model.families import FAMILIES
from sharding.means import means
from tests.families import config_of, documents, largest_difference, rows, to_params
from tests.parity import theirs
from tests.parity.test_families import batch
from tests.training.sharded import mesh_of
from training.config import RunConfig
from training.fields import flat
from training.loss import batch_sums

LOGITS, GRADIENTS = 1e-4, 1e-3
RANK, ALPHA = 3, 7.0
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [
    ("llama", False, ALL),
    ("llama", True, ALL),
    ("qwen2", True, ["q_proj", "v_proj", "down_proj"]),  # with biases
    ("gemma2", False, ALL),
]


class Both:
    """A small decoder with noise in its adapters, of theirs and of ours.

    Attributes:
      folder: as `peft` saved the adapters.
      model: theirs.
      config, params: ours, with adapters that were read from the folder.
    """

    def __init__(self, name: str, dora: bool, targets: list[str], folder: Any) -> None:
        self.family = FAMILIES[name]
        tensors = theirs.save(name, folder / "base", seed=1)
        said = peft.LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            use_dora=dora,
            target_modules=targets,
            task_type="CAUSAL_LM",
            init_lora_weights=True,
        )
        self.base = folder / "base"
        self.model = peft.get_peft_model(theirs.load(name, self.base), said)
        torch.manual_seed(0)
        with torch.no_grad():
            for key, parameter in self.model.named_parameters():
                if "lora_magnitude" in key:
                    parameter.mul_(1 + 0.3 * torch.rand(parameter.shape))
                elif "lora_" in key:
                    parameter.normal_(std=0.2)
        self.model.eval()
        self.folder = folder / "adapters"
        self.model.save_pretrained(self.folder)
        described = json.loads((self.base / "config.json").read_text())
        plain = config_of(described)[1]
        found = adapters.find(self.folder, self.family, plain)
        self.config = dataclasses.replace(plain, adapter=found.config)
        beside = adapters.read(found, self.family, self.config)
        self.params = parameters.joined(to_params(self.family, plain, tensors), beside)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Any:
    made: dict[Any, Both] = {}

    def make(name: str, dora: bool, targets: list[str]) -> Both:
        key = name, dora, len(targets)
        if key not in made:
            made[key] = Both(name, dora, targets, tmp_path_factory.mktemp(name))
        return made[key]

    return make


def logits_of(model: Any) -> list[np.ndarray]:
    return [theirs.logits(model, one).detach().numpy() for one in documents()]


@pytest.mark.parametrize(("name", "dora", "targets"), CASES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=["one device", "2x2x2"])
def test_logits_and_gradients(both, name, dora, targets, sizes, record_property):
    here = both(name, dora, targets)
    mesh = mesh_of(*sizes)
    outline = parameters.outline(here.config, means(mesh, here.config))
    given = batch()
    names = [path for path in flat(here.params) if "_adapter." in path]
    beside = parameters.part(here.params, names)

    def loss(beside: Any) -> Any:
        whole = parameters.joined(beside, parameters.without_adapters(here.params))
        model = parameters.bind(outline, whole)
        objective, sums = batch_sums(model, given, mesh)
        logits = model(given["tokens"], given["positions"], given["segments"])
        return objective / sums["tokens"], logits

    (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(beside)
    differences = [largest_difference(logits[i : i + 4], logits_of(here.model)) for i in (0, 4)]
    record_property("logits", float(max(differences)))
    assert max(differences) < LOGITS

    losses = [
        torch.nn.functional.cross_entropy(
            theirs.logits(here.model, document)[:-1],
            torch.from_numpy(document[1:]).long(),
            reduction="none",
        )
        for document in documents()
    ]
    here.model.zero_grad()
    for key, parameter in here.model.named_parameters():
        parameter.requires_grad_("lora_" in key)
    torch.cat(losses).mean().backward()
    expected = {
        key.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector"): (
            parameter.grad.numpy()
        )
        for key, parameter in here.model.named_parameters()
        if "lora_" in key
    }
    found, own = [], flat(gradients)
    wanted = adapters.tensors(here.family, here.config)
    assert {one.name for one in wanted} == expected.keys()
    for one in wanted:
        grad, largest = one.theirs(np.asarray(own[one.path][one.at])), np.abs(expected[one.name])
        assert largest.max() > 1e-5, one.name
        found.append(np.abs(grad - expected[one.name]).max() / largest.max())
    record_property("gradients", float(max(found)))
    assert max(found) < GRADIENTS


@pytest.mark.parametrize(("name", "dora", "targets"), CASES)
def test_what_is_written_loads_there(both, name, dora, targets, tmp_path):
    """The same tensors, and from them `peft` computes the same to the bit; merged it is near."""
    here = both(name, dora, targets)
    outline = parameters.outline(here.config)
    run = RunConfig(model=here.config, data=DataConfig(source="python_stdlib", sequence_length=8))
    trained = Trained(run, Record(run, "stream", "data"), 0, outline, here.params, mesh_of())
    exporting.export_adapters(trained, tmp_path / "out", here.family, "float32")
    written, expected = (
        load_file(folder / adapters.WEIGHTS) for folder in (tmp_path / "out", here.folder)
    )
    assert written.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(written[key], value, err_msg=key)
    again = peft.PeftModel.from_pretrained(theirs.load(name, here.base), tmp_path / "out").eval()
    for found, one in zip(logits_of(again), logits_of(here.model), strict=True):
        np.testing.assert_array_equal(found, one)
    plain = parameters.outline(here.config.plain)
    params = ours_of.merged(here.config, here.params)
    given = rows()
    logits = jax.jit(lambda p, *rows: parameters.bind(plain, p)(*rows))(
        params, given.tokens, given.positions, given.segments
    )
    assert largest_difference(logits, logits_of(here.model)) < LOGITS


def test_what_is_refused(both, tmp_path):
    """Adapters for a model of another shape, and what ours have not, each by name."""
    here = both("llama", False, ALL)
    said = json.loads((here.folder / adapters.CONFIG).read_text())
    tensors = load_file(here.folder / adapters.WEIGHTS)
    tmp_path.mkdir(exist_ok=True)

    def refused(said: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
        (tmp_path / adapters.CONFIG).write_text(json.dumps(said))
        save_file(tensors, tmp_path / adapters.WEIGHTS)
        with pytest.raises(Exception) as error:
            found = adapters.find(tmp_path, here.family, here.config.plain)
            config = dataclasses.replace(here.config.plain, adapter=found.config)
            adapters.read(found, here.family, config)
        assert type(error.value).__name__ == "UserError"
        return str(error.value)

    name = next(key for key in tensors if key.endswith("q_proj.lora_A.weight"))
    other = dict(tensors, **{name: np.zeros((RANK, 4), np.float32)})
    assert "these adapters are for another model" in refused(said, other)
    less = {key: value for key, value in tensors.items() if key != name}
    assert f"lacks {name}: every layer" in refused(said, less)
    more = dict(tensors, extra=np.zeros(3, np.float32))
    assert "has extra, which have no place here" in refused(said, more)
    assert "has bias='all', which Podium" in refused(said | {"bias": "all"}, tensors)
    assert "peft_type='IA3'" in refused(said | {"peft_type": "IA3"}, tensors)
