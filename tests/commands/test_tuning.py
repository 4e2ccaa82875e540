"""Tuning as a user runs it: base, adapters, resumed, evaluated, merged, and refused."""

import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.running import Commands, assert_same_run, metrics, saved, wait_for
from training.fields import flat

KEYS = [
    "--config.train.steps=6",
    "--config.checkpoint.every=2",
    "--config.evaluation.every=0",
    "--config.optimizer.schedule=constant",
    "--config.tuning.rank=4",
]


def tune(podium: Commands, workdir: Path, base: Path, *args: str) -> list[str]:
    start = f"--config.train.start_from={base}"
    method = [] if any("tuning.m" in one for one in args) else ["--config.tuning.method=lora"]
    return podium.train(workdir, start, *KEYS, *method, *args)


def refused(done) -> str:
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


@pytest.fixture(scope="module")
def base(podium: Commands, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("base") / "run"
    done = podium(*podium.train(workdir, "--config.train.steps=3", "--config.evaluation.every=0"))
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def tuned(podium: Commands, base, tmp_path_factory) -> Path:
    """The workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    done = podium(*tune(podium, workdir, base))
    assert done.returncode == 0, done.stderr
    # Of rank 4 beside weights of 64 x 64 (four), 64 x 256 (three), in two layers.
    moving = 2 * 4 * (4 * (64 + 64) + 3 * (64 + 256))
    assert f"tuning: {moving:,} parameters move (" in done.stderr
    return workdir


def test_a_checkpoint_has_what_moves_alone(base, tuned):
    params = flat(saved(tuned, 6)["params"])
    assert all("_adapter." in path for path in params)
    assert sum(x.size for x in params.values()) == 2 * 4 * (4 * 128 + 3 * 320)
    optimizer = jax.tree.leaves(saved(tuned, 6)["optimizer"])
    assert sum(x.size for x in optimizer) < 2 * sum(x.size for x in params.values()) + 8
    size = sum(f.stat().st_size for f in (tuned / "checkpoints" / "6").rglob("*") if f.is_file())
    whole = sum(f.stat().st_size for f in (base / "checkpoints" / "3").rglob("*") if f.is_file())
    assert size < whole / 3


@pytest.mark.slow
def test_the_first_step_is_of_the_base(podium: Commands, base, tuned, tmp_path):
    """Whether adapters move or all: the loss of the same rows, before anything has moved."""
    whole = tmp_path / "whole"
    done = podium(*tune(podium, whole, base, "--config.tuning.method=all"))
    assert done.returncode == 0, done.stderr
    first, expected = (next(m for m in metrics(run) if m["step"] == 1) for run in (tuned, whole))
    assert first["loss"] == expected["loss"]
    assert metrics(tuned)[-1] != metrics(whole)[-1]
    assert set(flat(saved(whole, 6)["params"])) == set(flat(saved(base, 3)["params"]))


def test_killed_it_goes_on_to_the_bit(podium: Commands, base, tuned, tmp_path):
    workdir = tmp_path / "run"
    command = tune(podium, workdir, base)
    process = podium.start(*command)
    wait_for(lambda: (workdir / "checkpoints" / "2").exists(), process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "killed too late"
    again = podium(*command)
    assert again.returncode == 0, again.stderr
    assert "resuming after step" in again.stderr
    assert_same_run(workdir, tuned, step=6)


@pytest.mark.slow
def test_it_is_evaluated_generates_and_is_merged(podium: Commands, base, tuned, tmp_path):
    final = next(m for m in reversed(metrics(tuned)) if "eval/loss" in m)
    done = podium("eval.py", f"--workdir={tuned}")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(result["loss"], final["eval/loss"], rtol=1e-6)
    before = json.loads(podium("eval.py", f"--workdir={base}").stdout.splitlines()[-1])
    assert result["loss"] < before["loss"] - 1e-3
    drawn = podium("generate.py", f"--workdir={tuned}", "--prompt=moon", "--max_tokens=3")
    assert drawn.returncode == 0, drawn.stderr
    # Merged, by a formula: of one weight in the second layer.
    out = tmp_path / "out"
    done = podium("convert.py", "to-hf", f"--workdir={tuned}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    w = flat(saved(base, 3)["params"])["blocks.attention.out"][1].reshape(64, 64)
    own = flat(saved(tuned, 6)["params"])
    a, b = (own[f"blocks.attention.out_adapter.{name}"][1] for name in "ab")
    expected = w + (32 / 4) * a.reshape(64, 4) @ b
    found = load_file(out / "model.safetensors")["model.layers.1.self_attn.o_proj.weight"]
    np.testing.assert_allclose(found.T, expected, rtol=0, atol=1e-6)
    assert np.abs(expected - w).max() > 1e-4
    back, theirs = tmp_path / "back", tmp_path / "peft"
    done = podium("convert.py", "to-hf", "--adapter", f"--workdir={tuned}", f"--out={theirs}")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in theirs.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    read = load_file(theirs / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight"
    np.testing.assert_array_equal(read[name], a.reshape(64, 4).T)
    # And in again: the same adapters, beside the same model.
    args = ("from-hf", str(theirs), f"--workdir={back}")
    assert refused(podium("convert.py", *args)) == (
        f"{theirs} has adapters: say beside which model by --base=WORKDIR"
    )
    done = podium("convert.py", *args, f"--base={base}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{back}: lora of rank 4 beside query, key, value, out, gate")
    for path, value in flat(saved(back, 0, ("params",))["params"]).items():
        np.testing.assert_array_equal(value, own[path], err_msg=path)
    (tmp_path / "text.txt").write_text("rose moon sea née " * 20)
    text = (f"--source=files:{tmp_path}/*.txt", "--split=text.txt", "--sequence_length=64")
    results = [podium("eval.py", f"--workdir={run}", *text) for run in (back, tuned)]
    losses = [json.loads(done.stdout.splitlines()[-1])["loss"] for done in results]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


@pytest.mark.slow
def test_adapters_for_another_model_are_refused(podium: Commands, base, tuned, tmp_path):
    """What it began with is gone from where it was, and another is there."""
    source, workdir = tmp_path / "source", tmp_path / "run"
    shutil.copytree(base, source)
    done = podium(*tune(podium, workdir, source))
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    other = podium.train(source, "--config.train.steps=3", "--config.train.seed=1")
    assert podium(*other, "--config.evaluation.every=0").returncode == 0
    says = (
        f"{workdir} was tuned from another model than {source} has now: bring back the one that "
        "it began with, or its checkpoint, for it has only what moved; if it is elsewhere: "
        "--base=WORKDIR, or for train.py --config.train.start_from=WORKDIR"
    )
    assert refused(podium("eval.py", f"--workdir={workdir}")) == says
    assert refused(podium(*tune(podium, workdir, source, "--config.train.steps=8"))) == says
    shutil.rmtree(source)
    gone = refused(podium("generate.py", f"--workdir={workdir}", "--prompt=moon"))
    assert gone == (
        f"config.train.start_from={source}: there is no such directory; if it is elsewhere: "
        "--base=WORKDIR, or for train.py --config.train.start_from=WORKDIR"
    )


@pytest.mark.slow
def test_a_base_that_was_moved(podium: Commands, base, tuned, tmp_path):
    """It is said where it is, and the run goes on as if it had never been elsewhere."""
    source, moved, workdir = (tmp_path / name for name in ("source", "moved", "run"))
    shutil.copytree(base, source)
    done = podium(*tune(podium, workdir, source, "--config.train.steps=4"))
    assert done.returncode == 0, done.stderr
    source.rename(moved)
    for command in (("eval.py",), ("generate.py", "--prompt=moon", "--max_tokens=3")):
        assert "--base=WORKDIR" in refused(podium(*command, f"--workdir={workdir}"))
        done = podium(*command, f"--workdir={workdir}", f"--base={moved}")
        assert done.returncode == 0, done.stderr
    out = (f"--workdir={workdir}", f"--base={moved}", f"--out={tmp_path / 'out'}")
    assert podium("convert.py", "to-hf", *out).returncode == 0
    again = podium(*tune(podium, workdir, moved))
    assert again.returncode == 0, again.stderr
    assert f"train.start_from: '{source}' -> '{moved}'" in again.stderr
    found, expected = (flat(saved(run, 6)["params"]) for run in (workdir, tuned))
    assert found.keys() == expected.keys()
    for path, value in found.items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.slow
def test_a_run_that_starts_from_adapters_has_them_merged(podium: Commands, tuned, tmp_path):
    workdir = tmp_path / "run"
    done = podium(*tune(podium, workdir, tuned, "--config.tuning.method=dora"))
    assert done.returncode == 0, done.stderr
    first = next(m for m in metrics(workdir) if m["step"] == 1)
    whole = tmp_path / "whole"
    assert podium(*tune(podium, whole, tuned, "--config.tuning.method=all")).returncode == 0
    expected = next(m for m in metrics(whole) if m["step"] == 1)
    np.testing.assert_allclose(first["loss"], expected["loss"], rtol=1e-6)
    done = podium("eval.py", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    final = next(m for m in reversed(metrics(workdir)) if "eval/loss" in m)
    found = json.loads(done.stdout.splitlines()[-1])["loss"]
    np.testing.assert_allclose(found, final["eval/loss"], rtol=1e-6)


@pytest.mark.slow
def test_two_processes_tune_as_one(podium: Commands, base, tmp_path):
    """And go on as one, where the other had begun."""
    mesh = ("--config.mesh.data=1", "--config.mesh.fsdp=2")
    together, alone = tmp_path / "together", tmp_path / "alone"
    for ended in podium.pair(tune(podium, together, base, *mesh)).wait(240):
        assert ended.code == 0, ended.err
    two = {"JAX_NUM_CPU_DEVICES": "2"}
    done = podium(*tune(podium, alone, base, *mesh), env=two)
    assert done.returncode == 0, done.stderr
    assert_same_run(together, alone, step=6)
    more = tune(podium, together, base, *mesh, "--config.train.steps=8")
    for ended in podium.pair(more).wait(240):
        assert ended.code == 0, ended.err
    again = podium(*tune(podium, alone, base, *mesh, "--config.train.steps=8"), env=two)
    assert again.returncode == 0, again.stderr
    assert_same_run(together, alone, step=8)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--config.tuning.method=qlora",), "choose one of all, lora, dora"),
        (
            ("--config.tuning.moving=('blok.*',)", "--config.tuning.method=all"),
            "config.tuning.moving=['blok.*']: 'blok.*' is the name of no parameter; there are",
        ),
    ],
)
def test_bad_keys(podium: Commands, base, tmp_path, args, says):
    assert says in refused(podium(*tune(podium, tmp_path / "run", base, *args)))


def test_a_part_of_nothing(podium: Commands, tmp_path):
    command = podium.train(tmp_path / "run", "--config.tuning.method=lora")
    assert refused(podium(*command)) == (
        "config.tuning.method='lora' trains a part of a model: say whose by "
        "--config.train.start_from=WORKDIR"
    )
