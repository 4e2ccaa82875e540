"""Makes the tables of docs/performance.md and docs/planning.md from the files of results.

    python -m bench report

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and is made of
bench/results/NAME.json. Where there is no such file it says that nothing was measured.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from bench.published import ROWS
from bench.results import FOLDER
from bench.tpu import SHAPES

_DOCS = Path(__file__).parent.parent / "docs"
DOCUMENTS = (_DOCS / "performance.md", _DOCS / "planning.md")
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_VERSIONS = ("python", "jax", "libtpu", "maxtext", "tokenizers", "grain")

Result = dict[str, Any]


def _table(head: str, rows: list[str]) -> Iterator[str]:
    yield head
    yield "|" + "---|" * (head.count("|") - 1)
    yield from rows


def _step(result: Result) -> Iterator[str]:
    rows = []
    for name, shape in result["shapes"].items():
        size = "{rows} x {length}, {dtype}".format(**shape["shape"])
        for side, one in shape["sides"].items():
            ratio = ""
            if spread := one.get("podium_is_faster_by"):
                ratio = "{median:.2f} ({min:.2f} to {max:.2f})".format(**spread)
            rows.append(
                f"| {name}, {size} | {side} | {one['step_s']:.3f} s | {one['tokens_per_s']:,.0f} | "
                f"{one['of_matmul']:.1%} | {ratio} |"
            )
    yield from _table(
        "| model, tokens a step | | a step | tokens/s | of the matrix product | Podium's ratio |",
        rows,
    )
    yield ""
    told = [
        f"{who} {max(rates) / 1e12:.3g}"
        for who, side in (("Podium's XLA", "podium"), ("PyTorch", "torch"))
        if (rates := [one["matmul_flops_per_s"] for one in _sides(result, side)])
    ]
    versions = {side["torch"] for side in _sides(result, "torch")}
    size = next(iter(result["shapes"].values()))["matmul_size"]
    yield (
        f"The matrix product is of {size} x {size}, in the same run, by XLA; TFLOP/s of it: "
        f"{', '.join(told)}. FLOPs {result['flops']}. PyTorch: {', '.join(versions) or 'none'}."
    )


def _sides(result: Result, who: str) -> list[Result]:
    pairs = [pair for shape in result["shapes"].values() for pair in shape["sides"].items()]
    return [one for side, one in pairs if side.startswith(who)]


def _tpu(result: Result) -> Iterator[str]:
    rows = []
    for one in result["sides"]:
        kernels = "; ".join(
            f"`{name}` x {k['calls']}: {k['flops'] / 1e12:.1f} TFLOP, {k['bytes'] / 1e9:.1f} GB"
            for name, k in one["kernels"].items()
            if k["calls"]
        )
        exchanged = "; ".join(
            f"{kind} {size / 1e9:.1f}" for kind, size in sorted(one["exchanges"].items())
        )
        rows.append(
            f"| {one['shape']} | {one['side']} | {one['arguments'] / 1e9:.2f} | "
            f"{one['temporaries'] / 1e9:.2f} | {one['cycles'] / 1e9:.3f}e9 | {exchanged} | "
            f"{kernels} |"
        )
    yield from _table(
        "| | | arguments, GB | temporaries, GB | cycles of fusions | exchanged, GB | kernels |",
        rows,
    )
    yield ""
    sides = {(one["shape"], one["side"]): one for one in result["sides"]}
    for name in dict.fromkeys(one["shape"] for one in result["sides"]):
        ours, theirs = sides[name, "podium"], sides[name, "maxtext"]
        yield (
            f"{name}, Podium / MaxText: temporaries "
            f"**{ours['temporaries'] / theirs['temporaries']:.3f}**, cycles "
            f"**{ours['cycles'] / theirs['cycles']:.3f}**.  "
        )


def _decode(result: Result) -> Iterator[str]:
    rows = []
    for run in result["runs"]:
        for side, one in run["sides"].items():
            ratio = ""
            if side == "podium" and (spread := run.get("podium_is_faster_by")):
                ratio = f"**{spread['median']:.2f}** ({spread['min']:.2f} to {spread['max']:.2f})"
            rows.append(
                f"| {run['dtype']}, {run['batch']} at a time | {side} | {one['first_s']:.3f} s | "
                f"{one['tokens_per_s']:,.1f} | {ratio} |"
            )
    yield from _table("| | | the first token | tokens/s after it | Podium's ratio |", rows)


def _beside(result: Result) -> Iterator[str]:
    sides = {(one["shape"], one["side"]): one for one in result["sides"]}
    rows = []
    for name in dict.fromkeys(one["shape"] for one in result["sides"]):
        ours, theirs = sides[name, "podium"], sides[name, "maxtext"]
        shape = SHAPES[name]
        cells = [f"{name}", shape.topology, f"{shape.rows} x {shape.length:,}"]
        for key in ("arguments", "temporaries", "cycles"):
            mine, other = ours[key] / 1e9, theirs[key] / 1e9
            cells.append(f"{mine:.2f} / {other:.2f} = **{mine / other:.3f}**")
        rows.append(f"| {' | '.join(cells)} |")
    yield from _table(
        "| | chips | a chip | arguments, GB | temporaries, GB | 10^9 cycles of fusions |", rows
    )


def _memory(result: Result) -> Iterator[str]:
    rows = [
        f"| {int(length):,} | {one['attention'] / 1e6:,.1f} MB | {one['head'] / 1e6:,.1f} MB |"
        for length, one in result["temporary_bytes"].items()
    ]
    yield from _table("| tokens | attention | head |", rows)
    yield ""
    yield f"One {result['device']}; attention: {result['attention']}."
    if not result.get("along_context"):
        return
    yield ""
    whole, *_ = result["along_context"].values()
    rows = []
    for name, one in result["along_context"].items():
        cells = (f"{size / 1e6:,.1f} MB | {whole[key] / size:.1f}" for key, size in one.items())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    yield from _table(
        f"| {result['along']:,} tokens, on a device | attention | x less | a step | x less |", rows
    )


def _profile(result: Result) -> Iterator[str]:
    total = sum(result["seconds"].values())
    rows = [f"| {kind} | {s / total:.1%} |" for kind, s in result["seconds"].items()]
    yield from _table(f"| of a step of {result['shape']} | |", rows)


def _curves(result: Result) -> Iterator[str]:
    rows, steps = [], []
    for name, by_rate in result["curves"].items():
        best = min(by_rate, key=lambda rate: list(by_rate[rate].values())[-1])
        for rate, points in by_rate.items():
            steps = [f"step {step}" for step in points]
            bits = [f"{value:.3f}" for value in points.values()]
            if rate == best:
                bits[-1] = f"**{bits[-1]}**"
            rows.append(f"| {name} | {rate} | {' | '.join(bits)} |")
    yield from _table(f"| | learning rate | {' | '.join(steps)} |", rows)
    yield ""
    yield (
        "Held-out bits a byte: on 20,000 tokens while a run goes, on the whole split at its end "
        "(bold: the best rate of each). One of the runs: "
        f"`{' '.join(result['example'])}`."
    )


def _data(result: Result) -> Iterator[str]:
    preparing = result["preparing"]
    of = sorted(a / b for a, b in zip(preparing["s"], preparing["tokenizer_s"], strict=True))
    yield (
        f"Preparing {preparing['text_bytes'] / 1e6:.0f} MB of text takes "
        f"{of[len(of) // 2]:.2f} x what the tokenizer alone takes ({of[0]:.2f} to {of[-1]:.2f}), "
        f"{preparing['peak_bytes'] / 1e6:.0f} MB in its processes. Batches of 8 x 1,024:"
    )
    yield ""
    rows = [
        f"| {title} | {side} | {rate / 1e6:.1f} M |"
        for title, sides in result["batches"].items()
        for side, rate in sides.items()
    ]
    yield from _table("| | | tokens/s |", rows)


def _predicted(result: Result) -> Iterator[str]:
    rows, errors, guesses = [], [], []
    for key, one in result["rows"].items():
        row = next(row for row in ROWS if row.key == key)
        published, guess = one["published_s"], one["estimated_s"] / one["published_s"] - 1
        guesses.append(abs(guess))
        predicted = "does not fit |"
        if seconds := one.get("predicted_s"):
            errors.append(abs(seconds / published - 1))
            predicted = f"{seconds:.2f} | **{seconds / published - 1:+.1%}**"
        keeps = ", ".join((*row.save, *(f"{name} (host)" for name in row.offload))) or "nothing"
        mesh = " x ".join(f"{axis}={n}" for axis, n in {"fsdp": "rest", **row.mesh}.items())
        rows.append(
            f"| {row.name} | {row.topology} | {mesh} | {row.rows:g} x {row.length:,} | {keeps} | "
            f"{published:.2f} | {predicted} | {guess:+.1%} | "
            f"{one['needed'] / 1e9:.0f} of {one['available'] / 1e9:.0f} |"
        )
    yield from _table(
        "| | chips | mesh | a chip | a block keeps | published, s | predicted, s | error | "
        "estimate's error | GB |",
        rows,
    )
    yield ""
    yield (
        f"Of {len(errors)} predictions the median error is **{median(errors):.1%}**, the largest "
        f"{max(errors):.1%}; of {len(guesses)} estimates without a compiler {median(guesses):.1%} "
        f"and {max(guesses):.1%}."
    )
    if failed := result.get("failed"):
        yield f"Not predicted, since it failed: {', '.join(failed)}."


TABLES: dict[str, Callable[[Result], Iterator[str]]] = {
    "step_cpu": _step,
    "decode_cpu": _decode,
    "profile_cpu": _profile,
    "step_gpu": _step,
    "tpu_tpu_aot": _tpu,
    "tpu_beside": _beside,
    "memory_tpu_aot": _memory,
    "memory_cpu": _memory,
    "data_cpu": _data,
    "curves_cpu": _curves,
    "predicted_tpu_aot": _predicted,
}
_FILES = {"tpu_beside": "tpu_tpu_aot"}
"""Where a table is not made of the file of its own name."""


def _made(name: str) -> str:
    path = FOLDER / f"{_FILES.get(name, name)}.json"
    if not path.exists():
        return "Not measured.\n"
    result = json.loads(path.read_text())
    told = result["environment"]
    versions = ", ".join(f"{key} {told[key]}" for key in _VERSIONS if key in told)
    lines = [
        *TABLES[name](result),
        "",
        f"`{result['command']}`, {told['machine']}, {versions}, commit {told['commit']} "
        f"([the whole result](../bench/results/{path.name})).",
    ]
    return "\n".join(lines) + "\n"


def rendered(text: str) -> str:
    """The document with its tables made anew."""
    return _TABLE.sub(lambda found: found[1] + _made(found[2]) + found[3], text)


def main() -> None:
    for document in DOCUMENTS:
        document.write_text(rendered(document.read_text()))


if __name__ == "__main__":
    main()
