"""Layouts that are thought of, and what becomes of those that are compiled."""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest

from model.moe_config import MoeConfig
from planning import search
from planning.analytic.estimate import estimate
from planning.layout import check
from planning.topology import parse
from tests.planning.runs import LLAMA, run_of
from tests.running import ROOT
from training.config import RunConfig

V5E = parse("v5e:2x4")
SMALL = dataclasses.replace(
    LLAMA, vocab_size=4096, num_layers=4, embed_dim=1024, num_heads=8, mlp_dim=8192
)
EXPERTS = dataclasses.replace(SMALL, moe=MoeConfig(num_experts=4, expert_mlp_dim=1024))
RUNS = {
    "dense": run_of(SMALL, 32, 2048),
    "experts": run_of(EXPERTS, 32, 2048),
    "long": run_of(dataclasses.replace(SMALL, max_length=32768), 16, 32768),
}


@pytest.mark.parametrize("kind", RUNS)
def test_every_layout_can_be(kind: str) -> None:
    run = RUNS[kind]
    found = list(search.candidates(run, V5E.devices))
    axes = {
        axis for one in found for axis, n in dataclasses.asdict(one.mesh).items() if n in (2, 4)
    }
    assert {"data", "fsdp", "tensor", "pipeline"} <= axes
    assert ("expert" in axes) == (kind == "experts") and ("context" in axes) == (kind == "long")
    keys = [json.dumps(search.flags_of(one, V5E.devices)) for one in found]
    assert len(keys) == len(set(keys)) > 50, "each once"
    for one in found[:: len(found) // 40]:
        check(one, V5E.devices)
        assert one.train.batch_size == run.train.batch_size, "the same steps"
        assert dataclasses.replace(one.model, remat=run.model.remat) == run.model


@pytest.mark.slow
def test_the_fastest_that_may_fit_come_first() -> None:
    run = run_of(SMALL, 512, 2048)
    ranked = search.rank(run, V5E)
    assert 0 < len(ranked) < len(list(search.candidates(run, V5E.devices)))
    times = [one.estimate.timing.step_s for one in ranked if one.estimate.timing]
    assert times == sorted(times)
    assert all(one.estimate.peak <= 1.1 * one.estimate.usable for one in ranked)
    given = {"model.remat": "none", "mesh.fsdp": 8, "train.accumulation": 1}
    (left_out,) = (
        one
        for one in search.candidates(run, V5E.devices)
        if given.items() <= search.flags_of(one, V5E.devices).items()
    )
    assert estimate(left_out, V5E).peak > 1.1 * estimate(left_out, V5E).usable
    kinds = [one.flags | {"mesh.data": 0, "mesh.fsdp": 0} for one in search._unlike_first(ranked)]
    different = len({json.dumps(kind) for kind in kinds})
    assert different < len(ranked) == len(kinds)
    assert len({json.dumps(kind) for kind in kinds[:different]}) == different


def faked(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """In the place of plan.py; it is given the flags of a candidate."""

    def start(one: search.Candidate, arguments: Any) -> search._Running:
        output = tempfile.TemporaryFile("w+")  # noqa: SIM115 (`search` closes it)
        flags = json.dumps(one.flags)
        process = subprocess.Popen(
            [sys.executable, "-c", script, flags],
            stdout=output,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return search._Running(one, process, output)

    monkeypatch.setattr(search, "_start", start)


PLAN = """
import json, sys
flags = json.loads(sys.argv[1])
fits = flags["model.remat"] == "full"
if flags["mesh.tensor"] == 8:
    sys.exit("error: a bug of the compiler")
time = {"step": flags["mesh.tensor"] + flags["train.accumulation"] / 100}
print(json.dumps({"fits": fits, "needed": 10, "memory": 5, "time": time}))
"""


def own(run: RunConfig) -> dict[str, Any]:
    return search.flags_of(run, V5E.devices)


def test_the_best_is_the_fastest_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, PLAN)
    run = RUNS["dense"]
    ranked = search.rank(run, V5E)
    monkeypatch.setattr(search, "rank", lambda *_: ranked[:16])
    said: list[str] = []
    found = search.search(run, V5E, [], 60, said.append)
    assert found[0].flags == own(run), "the config as it stands is compiled, too"
    assert len({json.dumps(one.flags) for one in found}) == len(found) >= 16
    best = search.best(found)
    assert best is not None and best.plan is not None and best.plan["fits"]
    assert best.seconds == min(one.seconds for one in found if one.seconds is not None)
    assert any("does not fit" in line for line in said)
    assert any("predicted" in line for line in said)


def test_it_ends_in_time_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RUNS["dense"]
    faked(monkeypatch, f"import time\ntime.sleep(0.5)\n{PLAN}\ntime.sleep(100 * (not fits))")
    ranked = search.rank(run, V5E)
    monkeypatch.setattr(search, "rank", lambda *_: ranked)
    began = time.monotonic()
    found = search.search(run, V5E, [], 3.0, lambda line: None)
    assert time.monotonic() - began < 30
    assert search.best(found) is not None, "what was done by then counts"


@pytest.mark.slow
def test_on_tpus() -> None:
    """As a user runs it: the flags that it prints are those of a run that fits."""
    pytest.importorskip(
        "libtpu", reason="the compiler of TPUs is not here: make setup-dev EXTRA=tpu"
    )
    command = [sys.executable, "plan.py", "--config=configs/tiny.py", "--topology=v5e:2x2"]
    command += ["--config.model.dtype=bfloat16"]

    def run(*more: str) -> str:
        done = subprocess.run(
            [*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    _, best = run("--search", "--search_minutes=1.5").split("\nthe fastest:\n")
    flags = [] if best.startswith("the config") else best.split()
    assert json.loads(run(*flags, "--json"))["fits"]
