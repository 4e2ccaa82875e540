"""The page: complete, self-contained, escaped, and there for interrupted and broken runs too."""

import json
import math
import re
from collections.abc import Container, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reporting.chart import Series, line_chart
from reporting.metrics import LINES, MetricsFiles
from reporting.report import write_report

INFO: dict[str, Any] = {
    "title": "a <b> run",
    "command": "python train.py --config=configs/tiny.py --workdir=out",
    "total_steps": 50,
    "parameters": 1234567,
    "config": {"seed": 12345, "model": {"layers": 2, "rope": {"theta": 10000.0}}, "mesh": {}},
    "environment": {"python": "3.11.7", "devices": ["cpu:0", "cpu:1"]},
    "dataset": {"name": "words", "fingerprint": "4f9b", "train": {"bytes": 29512331}},
    "baselines": {"gzip -9 per file": 1.6, "uniform": 8.0},
    "final": {
        "step": 50,
        "loss": 2.5,
        "perplexity": 12.18,
        "bits_per_byte": 1.68,
        "tokens": 4096,
        "bytes": 9000,
    },
    "samples": [{"prompt": "if a < b & c:", "text": "\n    return '</pre><script>'"}],
}
UNFINISHED = {name: value for name, value in INFO.items() if name != "final"}


class Page(HTMLParser):
    """The text of a page, its elements, and whether every element is closed."""

    VOID = frozenset({"meta", "br", "circle", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def write_run(
    workdir: Path, steps: int, bad: Container[int] = (), resume_step: int | None = None
) -> None:
    files = MetricsFiles(workdir, resume_step, print)
    for step in range((resume_step or 0) + 1, steps + 1):
        loss = math.nan if step in bad else 2 + 8 / step
        training = {"tokens": 100 * step, "loss": loss, "bits_per_byte": loss / 2}
        training |= {"grad_norm": 1 / step, "param_norm": 9.0, "learning_rate": 1e-4 * step}
        training |= {"time/step_s": 0.5, "time/wait_percent": 2.0, "time/tokens_per_s": 200.0}
        files.write(step, training | {"time/mfu_percent": None})
        if step % 10 == 0:
            held_out = {"eval/loss": loss, "eval/perplexity": 9.5, "eval/bits_per_byte": 1.4}
            files.write(step, held_out | {"time/eval_s": 1.0})
    files.close()


def report(workdir: Path, info: dict[str, Any] = INFO) -> Page:
    path = write_report(workdir, info)
    assert path == workdir / "report.html"
    assert not list(workdir.glob("*.partial"))
    return Page(path.read_text(encoding="utf-8"))


def test_a_finished_run(tmp_path: Path) -> None:
    write_run(tmp_path, 50)
    page = report(tmp_path)
    assert page.count("svg") == 7
    for text in (
        "a <b> run",
        "50 steps · words",
        "Validation perplexity 12.18 4,096 held-out tokens",
        "Parameters 1,234,567",
        "Tokens trained 5.0k",
        "Time 30s",
        "Throughput 200 tokens/s",
        "1.600 the model needs 5.0% more bits",
        "8.000 the model needs 79.0% fewer bits",
        "if a < b & c: return '</pre><script>'",
        "python train.py --config=configs/tiny.py --workdir=out",
        "seed 12345",
        "rope.theta 10000.0",
        "bytes 29,512,331",
        "devices cpu:0, cpu:1",
    ):
        assert text in page.text


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    write_run(tmp_path, 20)
    page = report(tmp_path)
    assert not page.count("script") and not page.count("link") and not page.count("img")
    assert not any({"src", "href"} & attrs.keys() for _, attrs in page.tags)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("missing", [None, *INFO])
def test_whatever_is_missing_is_left_out(missing: str | None, tmp_path: Path) -> None:
    write_run(tmp_path, 12)
    page = report(tmp_path, {name: value for name, value in INFO.items() if name != missing})
    assert page.count("svg") == 7


def test_a_run_without_metrics_or_information(tmp_path: Path) -> None:
    assert "0 steps" in report(tmp_path, {}).text
    assert "Config" in report(tmp_path).text
    (tmp_path / LINES).touch()
    assert not report(tmp_path, {}).count("svg")


def test_an_interrupted_run_shows_its_last_evaluation(tmp_path: Path) -> None:
    write_run(tmp_path, 25)
    with (tmp_path / LINES).open("a") as file:
        file.write('{"step": 26, "lo')
    page = report(tmp_path, {"total_steps": 50, "baselines": {"uniform": 8.0}})
    assert "Interrupted after 25 steps of 50" in page.text
    assert "Validation perplexity 9.50" in page.text
    assert "held out, at step 20" in page.text
    assert "the model needs 82.5% fewer bits" in page.text


def test_what_has_no_values_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, 20)
    lacking = "Without values in this run: Squared log of the softmax's normalizer; "
    assert f"{lacking}Of the devices' peak FLOP/s, %." in report(tmp_path).text


def test_a_run_that_was_not_evaluated_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, 9)
    assert "Interrupted after 9 steps of 50, not evaluated" in report(tmp_path, UNFINISHED).text
    assert "not evaluated" not in report(tmp_path).text


def test_steps_without_metrics_are_counted(tmp_path: Path) -> None:
    """As after a resume with the file of metrics gone."""
    said: list[str] = []
    files = MetricsFiles(tmp_path, 30, said.append)
    for step in range(31, 51):
        files.write(step, {"tokens": 100 * step, "loss": 2.0, "time/step_s": 0.5})
    files.close()
    assert said
    assert "50 steps, 30 of them without metrics" in report(tmp_path).text


def test_a_resumed_run_has_the_report_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """Nothing of the steps that were taken twice is counted twice."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    write_run(whole, 50)
    write_run(resumed, 44)
    write_run(resumed, 50, resume_step=30)
    undated = [
        re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", write_report(workdir, INFO).read_text())
        for workdir in (whole, resumed)
    ]
    assert undated[0] == undated[1]


@pytest.mark.parametrize("bad", [range(30, 51), range(1, 51), [7]])
def test_losses_that_are_not_finite_are_marked(bad: Sequence[int], tmp_path: Path) -> None:
    write_run(tmp_path, 50, bad)
    page = report(tmp_path)
    first, count = min(bad), len(bad) + len([step for step in bad if step % 10 == 0])
    assert f"not finite at {count} steps, first at {first}" in page.text
    assert any(attrs.get("class") == "nonfinite" for _, attrs in page.tags)
    drawn = [attrs["d"] for tag, attrs in page.tags if tag == "path"]
    assert not any("nan" in d or "inf" in d for d in drawn)


def test_a_final_evaluation_that_is_not_finite(tmp_path: Path) -> None:
    write_run(tmp_path, 5)
    final = dict.fromkeys(("loss", "perplexity", "bits_per_byte"), math.nan)
    page = report(tmp_path, INFO | {"final": {"step": 5, **final}})
    assert "Validation perplexity nan" in page.text


def test_a_long_run_makes_a_small_page_that_keeps_its_peaks(tmp_path: Path) -> None:
    with (tmp_path / LINES).open("w") as file:
        for step in range(1, 50_001):
            loss = 9.0 if step == 31_234 else 2.0
            file.write(json.dumps({"step": step, "loss": loss, "grad_norm": loss}) + "\n")
    page = report(tmp_path, {})
    assert (tmp_path / "report.html").stat().st_size < 300_000
    raw = next(a["d"] for t, a in page.tags if t == "path" and a.get("class") == "s0 raw")
    heights = {float(y) for y in re.findall(r"[ML]\S+ (\S+?)(?=[ML]|$)", raw)}
    assert len(heights) == 2


def points(svg: str, css: str) -> list[tuple[float, ...]]:
    (path,) = re.findall(rf'<path class="{css}" d="([^"]*)"', svg)
    return [tuple(map(float, p.split())) for p in re.findall(r"[ML]([^ML]+)", path)]


def test_a_chart_keeps_inside_its_axes_and_says_what_it_cuts_off() -> None:
    y = [1.0] * 500 + [1000.0] + [2.0] * 500
    svg = line_chart([Series("a", range(1001), y)], width=400, height=200)
    assert "peak 1,000, off the chart" in svg
    assert all(0 <= x <= 400 and 0 <= height <= 200 for x, height in points(svg, "s0"))
    higher, lower = points(svg, "s0")[-1], points(svg, "s0")[0]
    assert higher[1] < lower[1]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", [[0.0], [3.0, 3.0], [0.0, 0.0, 1e-9], [1e-30, 1e30], [-1.0, 2.0]])
def test_a_chart_of_any_values(y: list[float], log: bool) -> None:
    svg = line_chart([Series("a", range(len(y)), y)], width=400, height=200, log=log)
    assert "nan" not in svg and "inf" not in svg
    assert all(0 <= height <= 200 for _, height in points(svg, "s0"))


def test_a_chart_reads_out_the_mean_around_a_step() -> None:
    x, y = range(1, 1001), [1.0, 3.0] * 500
    other = Series("held out", [500, 1000], [7.0, 8.0])
    svg = line_chart([Series("train", x, y, smooth=True), other], width=400, height=200)
    texts = re.findall(r'class="value end"[^>]*>([^<]*)<', svg)
    assert len(texts) == 100
    assert texts[0] == "step 1   train 1"
    assert re.fullmatch(r"step 506   train (1\.9\d*|2|2\.0\d*)   held out 7", texts[50])


def test_an_empty_chart_is_nothing() -> None:
    assert line_chart([Series("a", [], [])], width=400, height=200) == ""
