"""From a real step to the page: whatever is computed is named, and whatever is named is shown."""

import dataclasses
import re
from html import escape
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from cluster.coordination import OneProcess
from cluster.watch import Watch
from evaluation.held_out import HeldOut
from evaluation.perplexity import make_scorer
from model import parameters
from model.layers import Means
from model.moe_config import MoeConfig
from reporting.metrics import MetricsFiles, read_metrics
from reporting.progress import Progress
from reporting.recorder import Recorder, Work
from reporting.report import write_report
from reporting.table import TABLE, metric
from sharding.placement import constrainer, place_rows
from tests.training.sharded import LENGTH, ROWS, batch, begin, mesh_of, placed
from tests.training.sharded import MODEL as DENSE
from training.objectives.distillation import Losses
from training.objectives.next_token import Losses as Text
from training.objectives.objective import OF_PAIRS
from training.state import NOTHING, shardings_of

STEPS = 3
EXPERTS = MoeConfig(num_experts=4, expert_mlp_dim=32, balance_weight=0.02, router_z_weight=1e-3)
MODEL = dataclasses.replace(DENSE, moe=EXPERTS)


class Split:
    """What an evaluation asks of data.windows.Windows."""

    n_batches, batch_size, is_examples = 2, ROWS, True

    def batch(self, index: int, rows: slice) -> dict[str, np.ndarray]:
        return {name: values[rows] for name, values in batch(index).items()}


TASKS = ("sums", "rhymes")
OF_OBJECTIVES = {*OF_PAIRS, *Losses._fields[len(Text._fields) :]}
"""What other objectives than that of the run below compute."""


def of_tasks(mesh: Mesh, index: int) -> dict[str, jax.Array]:
    """A batch of a mixture of two."""
    source = np.eye(2, dtype=np.int32)[np.arange(ROWS) % 2]
    return placed(mesh, index) | place_rows(mesh, ROWS, lambda rows: {"source": source[rows]})


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the real step, recorded as train.py does it, with an evaluation at its end."""
    workdir, mesh = tmp_path_factory.mktemp("run"), mesh_of()
    run = begin(mesh, MODEL)
    files = MetricsFiles(workdir, None, print)
    recorder = Recorder(
        files,
        Progress(STEPS),
        tokens=0,
        work=lambda step: Work(ROWS * LENGTH, 1e9),
        sources=TASKS,
        tasks=TASKS,
        peak_flops=1e12,
    )
    state = run.state
    for count in range(1, STEPS + 1):
        state, metrics = run.step(state, NOTHING, of_tasks(mesh, count))
        more = {name: jnp.float32(count / 7) for name in OF_OBJECTIVES}
        recorder.add(count, {**metrics, **more, "pairs": jnp.int32(3)}, 0.0, False)
    recorder.drain()
    outline = parameters.outline(MODEL, Means(constrainer(mesh)))
    of_text = make_scorer(outline, mesh, shardings_of(run.abstract.params))

    def score(params: Any, rows: Any) -> Any:
        of_pairs = {name: jnp.float32(1) for name in OF_PAIRS}
        return {**of_text(params, rows), **of_pairs, "pairs": jnp.int32(3)}

    watch = Watch(OneProcess(), leave=lambda code: None)
    split: Any = Split()
    HeldOut(score, mesh, files, print, watch)(STEPS, state.params, dict.fromkeys(TASKS, split))
    files.close()
    return workdir


def emitted(workdir: Path) -> set[str]:
    return {name for _, line in read_metrics(workdir) for name in line}


def captions(page: str) -> dict[str, str]:
    """The charts of a page: caption -> svg."""
    found = re.findall(r"<figure[^>]*><figcaption>(.*?)(?:<span.*?)?</figcaption>(.*?)</fig", page)
    return dict(found)


def test_what_is_computed_has_a_row_and_what_has_a_row_is_computed(workdir: Path) -> None:
    of_one = {f"{kind}/{name}" for kind in ("loss", "eval/loss") for name in TASKS}
    assert emitted(workdir) == set(TABLE) | of_one


def test_the_mean_over_tasks(workdir: Path) -> None:
    for kind, count in (("", STEPS), ("eval/", 1)):
        lines = [line for _, line in read_metrics(workdir) if f"{kind}task_loss" in line]
        assert len(lines) == count
        for line in lines:
            one, other = (line[f"{kind}loss/{name}"] or 0.0 for name in TASKS)
            assert line[f"{kind}task_loss"] == pytest.approx((one + other) / 2, rel=1e-12)
    steps = [line for _, line in read_metrics(workdir) if "task_loss" in line]
    assert all(line["task_loss"] != line["loss"] for line in steps)  # tasks count the same


def test_metrics_of_tasks_have_rows_of_their_own() -> None:
    row = metric("task/multitask:paws/accuracy_per_token")
    assert row.title == "accuracy per token of multitask:paws, 0 to 100"
    low = metric("task/multitask:paws/accuracy/low")
    assert (low.title, low.on, low.label) == ("", "task/multitask:paws/accuracy", "95 %, low")
    assert metric("task/mean").title == "mean of the tasks, each by its first metric, 0 to 100"
    assert not metric("time/tasks_s").title


def test_every_row_with_a_chart_is_in_the_report(workdir: Path) -> None:
    charts = captions(write_report(workdir, {}).read_text())
    rows = [*TABLE.values(), *(metric(f"loss/{name}") for name in TASKS)]
    assert list(charts) == [escape(row.title) for row in rows if row.title]
    for name, row in TABLE.items():
        if row.title or row.on:
            chart = charts[escape((TABLE[row.on] if row.on else row).title)]
            assert f"{escape(row.label)} " in chart, name  # it is read out under the pointer
    assert "Without values" not in write_report(workdir, {}).read_text()


def test_a_row_is_drawn_on_a_chart_that_there_is() -> None:
    for row in TABLE.values():
        assert not row.on or (not row.title and TABLE[row.on].title)


def test_rows_are_in_the_progress_line(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (last,) = (line for step, line in read_metrics(workdir) if step == STEPS and "loss" in line)
    Progress(STEPS).update(STEPS, last)
    shown = capsys.readouterr().err.strip().split("  ")
    rows = [(name, row.live) for name, row in TABLE.items() if row.live]
    assert shown == [f"step {STEPS}/{STEPS}", *(live(last[name] or 0) for name, live in rows)]


def test_a_metric_without_a_row_has_a_chart_under_its_name(tmp_path: Path) -> None:
    files = MetricsFiles(tmp_path, None, print)
    for step in range(1, 5):
        files.write(step, {"loss": 2.0, "router/<balance>": step / 7})
    files.close()
    charts = captions(write_report(tmp_path, {}).read_text())
    assert list(charts) == [escape(metric("loss").title), "router/&lt;balance&gt;"]
    assert "router/&lt;balance&gt; 0.5714" in charts["router/&lt;balance&gt;"]
