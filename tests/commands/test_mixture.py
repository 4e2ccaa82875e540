"""A run over a mixture with stages: killed and resumed, extended, and refused another past."""

import json
from pathlib import Path

import pytest

from tests.running import Commands, assert_same_run, metrics, wait_for

MIXED = ("train.py", "--config=tests/commands/mixed.py")


@pytest.fixture(scope="module")
def whole(podium: Commands, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the uninterrupted run."""
    workdir = tmp_path_factory.mktemp("mixture") / "run"
    done = podium(*MIXED, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "note: docs will be seen " in done.stderr + done.stdout
    return workdir


def test_every_corpus_has_its_loss(whole: Path) -> None:
    lines = {line["step"]: line for line in metrics(whole) if "loss" in line}
    assert set(lines) == set(range(1, 13))
    for step, line in lines.items():
        names = ["docs", "model", "launch"]
        losses = {name: line[f"loss/{name}"] for name in names}
        if step == 4:  # all of batch 3 is left out
            assert line["loss"] is None and set(losses.values()) == {None}
        elif step > 8:
            assert losses["model"] is None and losses["docs"] > 0 and losses["launch"] > 0
        else:
            assert min(losses.values()) <= line["loss"] <= max(losses.values())
    (final,) = [line for line in metrics(whole) if line["step"] == 12 and "eval/loss" in line]
    assert {name for name in final if name.startswith("eval/loss/")} == {
        "eval/loss/docs",
        "eval/loss/model",
    }
    assert "Loss of docs, nats a token" in (whole / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("after", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_killed_it_goes_on_as_if_it_had_not_been(
    podium: Commands, whole: Path, tmp_path: Path, after: int
) -> None:
    workdir = tmp_path / "run"
    process = podium.start(*MIXED, f"--workdir={workdir}")
    path = workdir / "metrics.jsonl"
    wait_for(lambda: path.exists() and path.read_text().count("\n") > after, process)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "killed too late"
    again = podium(*MIXED, f"--workdir={workdir}")
    assert again.returncode == 0, again.stderr
    assert_same_run(workdir, whole)


@pytest.mark.slow
def test_what_is_ahead_may_change_and_what_is_past_may_not(
    podium: Commands, whole: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    run = (*MIXED, f"--workdir={workdir}", "--config.optimizer.schedule=constant")
    part = podium(*run, "--config.train.steps=6")
    assert part.returncode == 0, part.stderr
    before = metrics(workdir)
    refused = podium(*run, "--config.data.stages.short.after_step=4")
    assert refused.returncode == 2
    assert "data.stages.short.after_step was 5, now 4" in refused.stderr
    refused = podium(*run, "--config.data.skip=('6:1',)")
    assert refused.returncode == 2 and "data.skip was ('4', '7:2-7')" in refused.stderr
    assert metrics(workdir) == before
    more = podium(
        *run, "--config.data.stages.docs.after_step=7", "--config.data.skip=('4', '7:1', '10')"
    )
    assert more.returncode == 0, more.stderr
    assert "changed since the run began: data.stages.docs.after_step: 8 -> 7" in (
        more.stderr + more.stdout
    )
    steps = [line for line in metrics(workdir) if "loss" in line]
    assert [line for line in steps if line["step"] <= 6] == [
        line for line in before if "loss" in line
    ]
    assert [line["step"] for line in steps if line["loss"] is None] == [4, 10] and len(steps) == 12


def test_eval_tells_of_each_corpus(podium: Commands, whole: Path) -> None:
    done = podium("eval.py", f"--workdir={whole}")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["corpora"]) == {"docs", "model"}
    for name in ("tokens", "bytes"):
        assert result[name] == sum(one[name] for one in result["corpora"].values())
    (final,) = [line for line in metrics(whole) if line["step"] == 12 and "eval/loss" in line]
    assert result["loss"] == pytest.approx(final["eval/loss"], rel=1e-6)
