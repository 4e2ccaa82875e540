"""report.html: a run on one page that needs nothing but itself: no network, no script."""

import math
import os
import statistics
from array import array
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from reporting.chart import Series, line_chart
from reporting.metrics import LINES, read_metrics
from reporting.progress import duration
from reporting.table import TABLE, metric, short

_STYLE = (Path(__file__).parent / "report.css").read_text()

Curve = tuple[array, array]  # steps, values


def write_report(workdir: Path, info: Mapping[str, Any]) -> Path:
    """Writes `workdir`/report.html from `workdir`/metrics.jsonl and `info`, and returns its path.

    Whatever is absent, from the metrics or from `info`, is left out: an interrupted run can have
    its report too. The file appears whole or not at all.

    Args:
      info: JSON-able. "title"; "command"; "total_steps", that the run was meant to have; "config",
        "environment" and "dataset": nested dicts, shown as they are; "parameters": count;
        "baselines": bits per byte by name; "final": the evaluation of the last step: "step",
        "loss", "perplexity", "bits_per_byte", "tokens", "bytes"; "tasks": by name "examples" and
        each metric's value, NAME, and ends of its interval, NAME_95; "samples":
        [{"prompt", "text"}], text being what follows the prompt.
    """
    curves = _read_curves(workdir)
    title = str(info.get("title", "Podium run"))
    sections = (
        _headline(info, curves),
        _section("Bits per byte of held-out text, beside baselines", _baselines(info, curves)),
        _section("Tasks, from 0 to 100, with intervals of 95 %", _tasks(info.get("tasks") or {})),
        _section("Curves", _charts(curves, info.get("baselines") or {})),
        _section("Samples", _samples(info.get("samples") or ())),
        _section("Run it again", _command(info)),
        _section("Config", _tables(info.get("config") or {})),
        _section("Data", _tables(info.get("dataset") or {}, integer="{:,}")),
        _section("Environment", _tables(info.get("environment") or {})),
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1>{_subtitle(info, curves)}{''.join(sections)}"
        f"</main></body></html>\n"
    )
    path = workdir / "report.html"
    partial = path.with_suffix(".html.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)
    return path


def _read_curves(workdir: Path) -> dict[str, Curve]:
    """Steps and values by name: of every row of the table, then of what the run has beside them."""
    curves: dict[str, Curve] = {name: (array("d"), array("d")) for name in TABLE}
    if not (workdir / LINES).exists():
        return curves
    for step, line in read_metrics(workdir):
        for name, value in line.items():
            steps, values = curves.setdefault(name, (array("d"), array("d")))
            if value is not None:
                steps.append(step)
                values.append(value)
    return curves


def _last(curve: Curve) -> float | None:
    return curve[1][-1] if curve[1] else None


def _evaluation(info: Mapping[str, Any], curves: Mapping[str, Curve]) -> dict[str, Any]:
    """The final evaluation, else the last one there was."""
    if info.get("final"):
        return dict(info["final"])
    steps, _ = curves["eval/loss"]
    names = ("loss", "perplexity", "bits_per_byte")
    last = {name: _last(curves[f"eval/{name}"]) for name in names}
    return {"step": int(steps[-1]), **last} if steps else {}


def _section(heading: str, body: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{body}</section>" if body else ""


def _subtitle(info: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    steps = curves["loss"][0]
    done = f"{int(steps[-1]) if steps else 0:,} steps"
    total = info.get("total_steps")
    if total and (not steps or steps[-1] < total):
        done = f"Interrupted after {done} of {total:,}"
    name = (info.get("dataset") or {}).get("name")
    if absent := int(max(steps, default=0)) - len(set(steps)):
        done += f", {absent:,} of them without metrics"
    if not curves["eval/loss"][0] and not info.get("final"):
        done += ", not evaluated"
    parts = [done, str(name) if name else "", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"]
    return f'<p class="subtitle">{escape(" · ".join(part for part in parts if part))}</p>'


def _headline(info: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    final, parameters = _evaluation(info, curves), info.get("parameters")

    def figure(name: str) -> str | None:
        return metric(f"eval/{name}").number(final[name]) if name in final else None

    seconds = sum(curves["time/step_s"][1]) + sum(curves["time/eval_s"][1])
    rates = curves["time/tokens_per_s"][1]
    steps, tokens = curves["loss"][0], _last(curves["tokens"])
    over = f"{final['tokens']:,} held-out tokens" if "tokens" in final else ""
    at = f"held out, at step {final['step']:,}" if "step" in final else "held out"
    total = info.get("total_steps")
    figures: list[tuple[str, str | None, str]] = [
        ("Validation loss", figure("loss"), "nats a token"),
        ("Validation perplexity", figure("perplexity"), over),
        ("Bits per byte", figure("bits_per_byte"), at),
        ("Parameters", f"{parameters:,}" if parameters is not None else None, ""),
        ("Steps", f"{int(steps[-1]):,}" if steps else None, f"of {total:,}" if total else ""),
        ("Tokens trained", short(tokens) if tokens is not None else None, ""),
        ("Time", duration(seconds) if seconds else None, "in steps and evaluation"),
        ("Throughput", short(statistics.median(rates)) if rates else None, "tokens/s, median"),
    ]
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for name, value, note in figures
        if value is not None
    )
    return f'<dl class="tiles">{tiles}</dl>' if tiles else ""


def _baselines(info: Mapping[str, Any], curves: Mapping[str, Curve]) -> str:
    ours, others = _evaluation(info, curves).get("bits_per_byte"), info.get("baselines") or {}
    if ours is None or not math.isfinite(ours) or not others:
        return ""
    longest = max(ours, *others.values())

    def row(name: str, bits: float, css: str, verdict: str) -> str:
        bar = f'<i style="width:{100 * bits / longest:.1f}%"></i>'
        return (
            f'<tr class="{css}"><th>{escape(name)}</th><td class="bar">{bar}</td>'
            f'<td class="num">{bits:.3f}</td><td>{escape(verdict)}</td></tr>'
        )

    rows = [row("This model", ours, "ours", "")]
    for name, bits in others.items():
        relative = ours / bits - 1
        verdict = f"the model needs {abs(relative):.1%} {'fewer' if relative < 0 else 'more'} bits"
        rows.append(row(name, bits, "", verdict))
    return f'<table class="baselines">{"".join(rows)}</table>'


def _tasks(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    rows = "".join(
        f"<tr><th>{escape(task)}</th><td>{escape(name)}</td>"
        f'<td class="num">{found[name]:.1f}</td>'
        f"<td>{found[f'{name}_95'][0]:.1f} to {found[f'{name}_95'][1]:.1f}, "
        f"{found['examples']:,} examples</td></tr>"
        for task, found in tasks.items()
        for name in found
        if f"{name}_95" in found
    )
    return f'<table class="baselines">{rows}</table>' if rows else ""


def _charts(curves: Mapping[str, Curve], baselines: Mapping[str, float]) -> str:
    """A chart for each row of the table that has one, and for each metric that has no row."""
    near = {name: bits for name, bits in baselines.items() if bits < 4}
    charts, empty = "", []
    for name in curves:
        row = metric(name)
        if not row.title:
            continue
        lines = [name, *(other for other in curves if metric(other).on == name)]
        series = [
            Series(metric(line).label, *curves[line], smooth=metric(line).smooth) for line in lines
        ]
        width, height = (984, 340) if row.wide else (480, 220)
        svg = line_chart(
            series,
            width=width,
            height=height,
            number=row.number,
            log=row.log,
            zero=row.zero,
            references=near if row.baselines else None,
        )
        if not svg:
            empty += [] if row.some else [row.title]
            continue
        keys = [f'<span class="s{i}">{escape(s.label)}</span>' for i, s in enumerate(series) if s.x]
        legend = "".join(keys) if len(series) > 1 else ""
        css = ' class="wide"' if row.wide else ""
        caption = f"<figcaption>{escape(row.title)}{legend}</figcaption>"
        charts += f"<figure{css}>{caption}{svg}</figure>"
    if not charts:
        return ""
    lacking = f"<p>Without values in this run: {escape('; '.join(empty))}.</p>" if empty else ""
    return f'<div class="charts">{charts}</div>{lacking}'


def _samples(samples: Sequence[Mapping[str, str]]) -> str:
    return "".join(
        f"<pre><b>{escape(sample.get('prompt', ''))}</b>{escape(sample.get('text', ''))}</pre>"
        for sample in samples
    )


def _command(info: Mapping[str, Any]) -> str:
    if not info.get("command"):
        return ""
    return (
        f"<pre>{escape(str(info['command']))}</pre><p>The same command continues from the last "
        "checkpoint; with another <code>--workdir</code> it repeats the run from the start.</p>"
    )


def _tables(tree: Mapping[str, Any], integer: str = "{}") -> str:
    """A table of the plain values, then one a nested dict; what is deeper has dotted names."""
    groups = {"": {name: value for name, value in tree.items() if not isinstance(value, Mapping)}}
    groups |= {str(name): dict(value) for name, value in tree.items() if isinstance(value, Mapping)}
    tables = []
    for name, group in groups.items():
        rows = "".join(
            f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>"
            for key, value in _flat(group, integer)
        )
        caption = f"<caption>{escape(name)}</caption>" if name else ""
        tables.append(f"<table>{caption}{rows}</table>" if rows else "")
    return f'<div class="tables">{"".join(tables)}</div>' if any(tables) else ""


def _flat(tree: Mapping[str, Any], integer: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, integer, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{name}", integer.format(value) if type(value) is int else str(value)
