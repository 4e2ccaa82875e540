"""What a plan says, on simulated devices."""

import dataclasses
import json

import jax
import pytest

from configs import llama3_8b_lora, tiny
from configs.base import base
from errors import UserError
from planning import text
from planning.plan import Plan, make_plan, read_config
from planning.topology import Topology, parse
from training.config import RunConfig

CPU = parse(f"cpu:{len(jax.devices())}")
V5E = parse("v5e:2x4")


def tiny_on(topology: Topology, **mesh: int) -> RunConfig:
    config = tiny.get_config()
    config.mesh.update({"data": 1, "fsdp": 1, "tensor": 1, **mesh})
    return read_config(config, topology, [])[0]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(tiny_on(CPU, data=2, fsdp=2, tensor=2), CPU)


def test_bytes_are_those_of_the_compiled_step(plan):
    memory = plan.program.memory
    state = sum(one.bytes for one in plan.tensors)
    batch = 16 // 4 * 64 * 6 * 4  # rows of a device, tokens, arrays, bytes
    assert memory.arguments == state + batch + 4  # and the step's number
    assert plan.needed == memory.total and plan.fits


def test_exchanges_go_along_the_axes_of_the_mesh(plan):
    along = {axis for one in plan.program.exchanges for axis in one.axes}
    assert along == {"data", "fsdp", "tensor"}


def test_it_is_told(plan):
    lines = "\n".join(text.told(plan))
    for part in (
        "data=2 x fsdp=2 x tensor=2",
        "blocks.mlp.up",
        "temporaries: gradients, activations, logits",
        "largest buffers",
        "all-reduce",
        "no prediction of time",
        "the whole run: 20 steps",
    ):
        assert part in lines


def test_it_is_plain_values(plan):
    plain = json.loads(json.dumps(plan.to_dict()))
    assert plain["fits"] and plain["needed"] == plan.needed
    assert plain["config"]["mesh"]["fsdp"] == 2
    assert {one["kind"] for one in plain["program"]["exchanges"]} >= {"all-reduce"}


def test_without_a_compiler():
    plan = make_plan(tiny_on(V5E, fsdp=8), V5E, compiling=False)
    assert plan.program is None and plan.reason == "--nocompile"
    kept = {kind: sum(t.bytes for t in plan.tensors if t.kind == kind) for kind in ("parameters",)}
    assert plan.needed > 3 * kept["parameters"]
    assert "not compiled: --nocompile" in "\n".join(text.told(plan))


def test_preferences_are_planned_without_a_reference():
    """The model's shape is in the config, and what it starts from need not be here."""
    config = llama3_8b_lora.get_config()
    config.objective.name = "dpo"
    topology = parse("v6e:4x4")
    run, _ = read_config(config, topology, [])
    plan = make_plan(run, topology, compiling=False)
    assert plan.config.objective.name == "dpo" and plan.needed > 0


def test_what_does_not_fit_says_by_how_much():
    run = tiny_on(V5E, fsdp=8)
    large = dataclasses.replace(run.model, embed_dim=16384, mlp_dim=65536, num_layers=32)
    plan = make_plan(dataclasses.replace(run, model=large), V5E, compiling=False)
    assert not plan.fits
    over = (plan.needed - plan.memory) / 1e9
    assert f"IT DOES NOT FIT: {over:,.2f} GB more" in "\n".join(text.told(plan))


def test_a_mesh_that_cannot_be():
    with pytest.raises(UserError, match=r"config\.mesh: .* takes 4 devices, but there are 8"):
        make_plan(tiny_on(V5E, fsdp=4), V5E, compiling=False)


def test_what_only_data_needs_may_be_open():
    config = base()
    config.data.tokenizer = None
    run, layout = read_config(config, V5E, [])
    assert run.data.tokenizer == "not needed" and layout is None
    assert run.model.dtype == "bfloat16"
