"""Every shipped run: read, validated on the devices its docstring names, traced whole."""

import importlib
import math

import jax
import pytest
from ml_collections import ConfigDict

from configs import door, flags
from planning.hardware import devices_of
from planning.layout import check
from sharding.mesh import make_mesh
from sharding.table import sharding
from tests import goldens
from tests.training.sharded import batch as some_batch
from training.assembly import assemble
from training.config import RunConfig
from training.objectives.objective import one_row

HERE = (  # for one device
    "books",
    "chat",
    "continued",
    "distillation",
    "intents",
    "mixture",
    "multitask",
    "preferences",
    "python_stdlib",
    "tfds_text",
    "tiny",
    "translation",
)
PLACES = goldens.places()
RUNS = flags.runs()
PARAMETERS = {  # as published
    "deepseek_moe_16b": 16.4e9,
    "deepseek_v3": 671e9,
    "gemma2_2b": 2.61e9,
    "gemma3_1b": 1.00e9,
    "gemma3_4b": 3.88e9,
    "gpt2_124m": 124e6,
    "gpt_oss_20b": 20.9e9,
    "llama2_7b": 6.74e9,
    "llama2_70b": 69.0e9,
    "llama3_405b": 405.9e9,
    "llama3_8b": 8.03e9,
    "llama3_8b_lora": 8.03e9 + 41.9e6,
    "llama_1b": 1.24e9,
    "mistral_7b": 7.24e9,
    "mixtral_8x7b": 46.7e9,
    "olmo2_7b": 7.30e9,
    "phi4_14b": 14.7e9,
    "qwen25_05b": 494e6,
    "qwen25_7b": 7.62e9,
    "qwen3_06b": 596e6,
    "qwen3_8b": 8.19e9,
    "qwen3_30b_a3b": 30.5e9,
    "smollm2_135m": 134.5e6,
}


def config_of(name: str) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config()


def run_of(name: str) -> RunConfig:
    config = config_of(name)
    if config.data.tokenizer is None:
        config.data.tokenizer = "tokenizer.json"
    if config.train.start_from is None:  # whatever it starts from: here the model of base.py
        config.train.start_from = ""
        config.model.max_length = max(config.model.max_length, config.data.sequence_length)
    if config.objective.name != "next_token":
        config.objective.teacher = "runs/teacher"
    return door.with_vocabulary(door.read(config, "tpu"), config.data.tokenizer_vocab_size)


def test_every_run_has_layouts_or_is_for_one_device():
    assert {name for name, _ in PLACES} | set(HERE) == set(RUNS)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_it_fits_the_hardware_of_its_layouts(place):
    assert check(goldens.run_on(*place), devices_of(place[1])) == ()


@pytest.mark.parametrize("name", RUNS)
def test_its_step_is_traced_on_eight_devices(name):
    """The whole step by shapes alone: parameters, optimizer, gradients, nothing in memory."""
    run = run_of(name)
    rows, length, eight = run.train.batch_size, run.data.sequence_length, len(jax.devices())
    if rows // run.train.accumulation % eight:  # books and python_stdlib are for one device
        assert name in HERE
        eight = 1
    mesh = make_mesh(run.mesh, jax.devices()[:eight])
    made = assemble(run, mesh)
    state = made.state
    by_rows = sharding(mesh, ("batch",))
    batch = {
        key: jax.ShapeDtypeStruct((rows, length, *values.shape[2:]), values.dtype, sharding=by_rows)
        for key, values in (some_batch(0) | one_row(run.objective, length)).items()
    }
    after, metrics = jax.eval_shape(made.step, state, made.fixed, batch)
    jax.tree.map(lambda a, b: None if same(a, b) else pytest.fail(f"{a} became {b}"), state, after)
    assert {leaf.shape for leaf in jax.tree.leaves(metrics)} == {()}
    both = state.params, made.fixed.params
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(both))
    assert count == run.model.num_params()
    assert count == pytest.approx(PARAMETERS.get(name, count), rel=0.005)


def same(a: jax.ShapeDtypeStruct, b: jax.ShapeDtypeStruct) -> bool:
    return (a.shape, a.dtype) == (b.shape, b.dtype)


@pytest.mark.parametrize("name", ["chat", "intents", "multitask", "translation"])
def test_its_tiny_form_needs_no_assets(name):
    config = importlib.import_module(f"configs.{name}").get_config("tiny")
    assert f"configs/{name}.py:tiny" in (importlib.import_module(f"configs.{name}").__doc__ or "")
    config.train.start_from = ""
    corpora = door.read(config, "cpu").data.corpora()
    assert {corpus.source for corpus in corpora} == {"python_stdlib"}


@pytest.mark.parametrize("name", [name for name in PARAMETERS if "lora" not in name])
def test_a_run_whose_vocabulary_is_given_needs_a_tokenizer(name):
    with pytest.raises(door.UserError, match=r"config\.data\.tokenizer is not set: .* ids: give"):
        door.read(config_of(name), "cpu")


@pytest.mark.parametrize("name", RUNS)
def test_its_docstring_has_its_command(name):
    doc = importlib.import_module(f"configs.{name}").__doc__ or ""
    assert f"python train.py --config=configs/{name}.py --workdir=runs/" in doc
