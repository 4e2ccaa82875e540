"""What is said of a run that does not fit: that it then fits, and that less is not enough."""

import dataclasses
import itertools
from typing import Any

import pytest

from errors import UserError
from model.config import ModelConfig
from planning import remedies as module
from planning import text
from planning.analytic.estimate import estimate
from planning.plan import Plan, make_plan
from planning.remedies import Flags, remedies
from planning.topology import parse
from tests.planning.runs import LLAMA, run_of
from training.config import EvaluationConfig, RunConfig

V5E = parse("v5e:2x2")
SMALL = dataclasses.replace(
    LLAMA,
    vocab_size=4096,
    num_layers=4,
    embed_dim=1024,
    num_heads=8,
    mlp_dim=8192,
    max_length=2048,
    remat="none",
)


def changed(config: RunConfig, flags: Flags) -> RunConfig:
    for key, value in flags.items():
        section, name = key.split(".")
        part = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: part})
    return config


def planned(config: RunConfig, topology: str = "v5e:2x2", compiling: bool = False) -> Plan:
    return make_plan(config, parse(topology), compiling)


CASES: list[tuple[ModelConfig, int, str, dict[str, Any]]] = [
    (SMALL, 64, "v5e:2x2", {}),
    (SMALL, 64, "v5e:2x2", {"data": 2}),
    (dataclasses.replace(LLAMA, remat="none"), 32, "v5e:4x4", {}),
    (dataclasses.replace(LLAMA, num_layers=128), 1024, "v5p:2x4x4", {"data": 4}),
    (dataclasses.replace(LLAMA, remat="none"), 256, "h100:8", {"tensor": 2}),
]


@pytest.mark.parametrize(("model", "rows", "topology", "mesh"), CASES)
def test_fewer_changes_are_not_enough(
    model: ModelConfig, rows: int, topology: str, mesh: dict[str, Any]
) -> None:
    run = run_of(model, rows, 2048, **mesh)
    plan = planned(run, topology)
    assert not plan.fits and plan.remedies
    on = parse(topology)
    for one in plan.remedies:
        there = changed(run, one.flags)
        after = make_plan(there, one.topology, compiling=False)
        assert after.fits and after.needed == one.bytes
        assert after.estimate.timing and after.estimate.timing.step_s == one.step_s
        for n in range(len(one.flags) if one.topology == on else 0):
            for some in itertools.combinations(one.flags.items(), n):
                if {"mesh.fsdp", "mesh.tensor"} & dict(some).keys():
                    continue  # half of a mesh is none
                less = estimate(changed(run, dict(some)), on)
                assert less.peak > 0.96 * plan.memory


def test_what_the_compiler_needs_more_is_needed_later_too() -> None:
    run = run_of(SMALL, 64, 2048)
    guess = estimate(run, V5E).peak
    more = 4 << 30
    for plain, wary in zip(
        remedies(run, V5E, guess), remedies(run, V5E, guess + more), strict=False
    ):
        assert wary.bytes == estimate(changed(run, wary.flags), wary.topology).peak + more
        assert plain.bytes == estimate(changed(run, plain.flags), plain.topology).peak


def test_they_are_told_as_flags() -> None:
    plan = planned(run_of(SMALL, 64, 2048))
    lines = "\n".join(text.told(plan))
    assert "what would mend it" in lines
    for one in plan.remedies:
        for key, value in one.flags.items():
            assert f"--config.{key}={value}" in lines
    assert plan.to_dict()["remedies"][0]["flags"] == plan.remedies[0].flags
    assert text.flag("a", ("block",)) == "\"--a=('block',)\""


def test_what_cannot_be_is_no_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then more changes are tried, one at a time no more."""
    run = run_of(SMALL, 64, 2048)
    guess = estimate(run, V5E).peak
    first = remedies(run, V5E, guess)
    one = [remedy for remedy in first if remedy.topology == V5E]
    assert {len(remedy.flags) for remedy in one} == {1}

    def check(config: RunConfig, devices: int) -> None:
        changes = [config.model != run.model, config.train != run.train, config.mesh != run.mesh]
        if sum([*changes, config.optimizer != run.optimizer]) < 2:
            raise UserError("so few changes cannot be")

    monkeypatch.setattr(module, "check", check)
    found = remedies(run, V5E, guess)
    assert found and {len(remedy.flags) for remedy in found} == {2}


def test_more_chips_keep_the_layout_and_may_be_more_slices() -> None:
    run = run_of(dataclasses.replace(LLAMA, num_layers=100), 512, 8192)
    run = dataclasses.replace(run, evaluation=EvaluationConfig(batch_size=256))
    full = parse("v5e:16x16")
    plan = make_plan(run, full, compiling=False, layout="v5e-256")
    more = plan.remedies[-1]
    assert more.topology.shape == (16, 16) and more.topology.slices > 1
    assert more.flags["mesh.fsdp"] == more.topology.devices
    flags = f"--topology=v5e:16x16 --slices={more.topology.slices} --config.layout=v5e-256"
    assert flags in "\n".join(text.told(plan))


def test_none_where_nothing_helps() -> None:
    """Not even 32 times as many chips hold what is not split: a row of 2^24 tokens."""
    endless = dataclasses.replace(SMALL, max_length=1 << 24, remat="full")
    plan = planned(run_of(endless, 256, 1 << 24))
    assert not plan.fits and not plan.remedies
    assert "no change of layout mends it" in "\n".join(text.told(plan))


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_the_compiler_agrees(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled, it does not fit; with the changes it does."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    run = run_of(SMALL, 64, 2048)
    plan = planned(run, compiling=True)
    assert plan.program is not None and not plan.fits
    assert plan.program.live, "the largest buffers are told of what does not fit, too"
    remedy = plan.remedies[which]
    after = make_plan(changed(run, remedy.flags), remedy.topology)
    assert after.program is not None and after.fits, remedy
