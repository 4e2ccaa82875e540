"""Line charts as SVG text, coloured by the page's CSS; values under the pointer need no script.

Classes for the page to style: `grid`, `axis`, `reference` and `nonfinite` lines; `s0`, `s1`, ...
for the series, `raw` for the pale line under a smoothed one; `column` for what answers to the
pointer; texts `tick`, `label`, `note`, `warning`, `value`.

No library serves as well: pygal (LGPL) puts a script into the page, Matplotlib and Altair draw what
the page's CSS cannot colour and the pointer cannot read, for 170 and 100 MB of packages.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

_POINTS = 800  # of a drawn line; more is not seen
_COLUMNS = 100  # that answer to the pointer
_DOTS = 60  # the most points of a line that are marked
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 10, 22, 22  # margins around the plot, px


@dataclass(frozen=True)
class Series:
    """y over the steps x; both of one length, x ascending.

    Attributes:
      y: may hold NaN and infinities: they are marked at the bottom of the chart.
      smooth: draws y pale and its running mean over it; the chart then reads out the mean.
        Otherwise the points themselves are marked, where they are few.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    smooth: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    width: int,
    height: int,
    number: Callable[[float], str] = "{:,.4g}".format,
    log: bool = False,
    zero: bool = False,
    references: Mapping[str, float] | None = None,
) -> str:
    """An <svg> of `series`, or "" where they hold no points.

    Args:
      width, height: px.
      number: writes a value of y for the reader.
      log: logarithmic y; a value that is not positive is drawn at the bottom.
      zero: y starts at zero.
      references: horizontal lines by label.
    """
    series = [s for s in series if len(s.x)]
    if not series:
        return ""
    references = references or {}
    lines = [list(_thinned(s.x, s.y)) for s in series]
    means = [_running_mean(s.y) if s.smooth else s.y for s in series]
    drawn = [y for line in lines for _, y in line if math.isfinite(y) and (y > 0 or not log)]
    low, high = _range([*drawn, *references.values()], log, zero)
    first, last = min(s.x[0] for s in series), max(s.x[-1] for s in series)
    first = 0.0 if first <= last / 20 else first
    right, bottom = width - _RIGHT, height - _BOTTOM
    plot = _Plot(
        right=right,
        bottom=bottom,
        high=high,
        x_of=_scale(first, last, _LEFT, right),
        y_of=_scale(low, high, bottom, _TOP, log),
        number=number,
    )

    out = [f'<svg viewBox="0 0 {width} {height}" role="img">']
    for value, text in _log_ticks(low, high) if log else _ticks(low, high, max(2, height // 40)):
        y = plot.y_of(value)
        out.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        out.append(_text(_LEFT - 7, y + 4, "tick end", text))
    for value, text in _ticks(first, last, width // 110):
        x = plot.x_of(value)
        out.append(_text(x, bottom + 16, "tick end" if x > right - 16 else "tick middle", text))
    out.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    for label, value in references.items():
        y = plot.y_of(value)
        out.append(f'<path class="reference" d="M{_LEFT} {y:.1f}H{right}"/>')
        out.append(_text(right, y - 5, "label end", f"{label}  {number(value)}"))

    for i, (s, line, mean) in enumerate(zip(series, lines, means, strict=True)):
        if mean is not s.y:
            out.append(f'<path class="s{i} raw" d="{_path(line, plot)}"/>')
        path = line if mean is s.y else _thinned(s.x, mean)
        out.append(f'<path class="s{i}" d="{_path(path, plot)}"/>')
        if not s.smooth and len(s.x) <= _DOTS:
            out.extend(
                f'<circle class="s{i}" cx="{plot.x_of(x):.1f}" cy="{plot.y_of(y):.1f}" r="2.4"/>'
                for x, y in line
                if math.isfinite(y)
            )
    out.append(_notes(series, drawn, plot))
    out.append(_columns(series, means, plot))
    return "".join(out) + "</svg>"


@dataclass(frozen=True)
class _Plot:
    """The area between the axes, px, and how values get there; y_of keeps to the area."""

    right: float
    bottom: float
    high: float
    x_of: Callable[[float], float]
    y_of: Callable[[float], float]
    number: Callable[[float], str]


def _thinned(x: Sequence[float], y: Sequence[float]) -> Iterator[tuple[float, float]]:
    """At most about _POINTS points: the least and the greatest finite y of every run of points."""
    size = max(1, 2 * math.ceil(len(x) / _POINTS)) if len(x) > _POINTS else 1
    for start in range(0, len(x), size):
        chunk = range(start, min(start + size, len(x)))
        finite = [i for i in chunk if math.isfinite(y[i])]
        if not finite:
            yield x[start], math.nan
            continue
        extremes = {min(finite, key=y.__getitem__), max(finite, key=y.__getitem__)}
        yield from ((x[i], y[i]) for i in sorted(extremes))


def _running_mean(y: Sequence[float]) -> Sequence[float]:
    """The mean of the finite values around each point, over 2 % of the run, over less at its start.

    Centred, because a mean of the past alone would lag behind a falling loss.
    """
    n, most = len(y), len(y) // 100
    if not most:
        return y
    values = np.asarray(y, np.float64)
    finite = np.isfinite(values)
    at = np.arange(n)
    low = at - np.minimum(at, most)
    high = np.minimum(at + np.minimum(at, most), n - 1) + 1
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    mean = (sums[high] - sums[low]) / np.maximum(counts[high] - counts[low], 1)
    return np.where(finite, mean, np.nan).tolist()


def _range(values: list[float], log: bool, zero: bool) -> tuple[float, float]:
    """Of the y axis. Where a few outliers would flatten the rest, `_notes` tells them instead."""
    if not values:
        return (0.1, 1.0) if log else (0.0, 1.0)
    values = sorted(values)
    low, high = values[0], values[-1]
    if log:
        margin = (high / low) ** 0.05 if high > low else 2.0
        return low / margin, high * margin
    usual = values[int(0.99 * (len(values) - 1))]
    if high > 4 * usual > 0:
        high = 1.5 * usual
    margin = 0.05 * (high - low) or abs(high) or 1.0
    return (0.0 if zero else low - margin), high + margin


def _scale(
    low: float, high: float, start: float, end: float, log: bool = False
) -> Callable[[float], float]:
    """Maps [low, high] to [start, end], and what is outside to the nearer of these."""
    if log:
        linear = _scale(math.log(low), math.log(high), start, end)
        return lambda value: linear(math.log(max(value, low)))
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * min(max((value - low) / span, 0.0), 1.0)


def _ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """About `count` round values in [low, high], with their texts."""
    rough = ((high - low) or 1.0) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    values = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(value, _tick_text(value, decimals)) for value in values]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for multiples in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8)):
        values = [m * 10.0**power for power in powers for m in multiples]
        values = [value for value in values if low <= value <= high]
        if len(values) >= 4:
            every = math.ceil(len(values) / 8)
            return [(value, _tick_text(value, None)) for value in values[::every]]
    return _ticks(low, high, 4)


def _tick_text(value: float, decimals: int | None) -> str:
    if abs(value) >= 1e5:
        scale, letter = next(p for p in _SUFFIXES if abs(value) >= p[0] or p[0] == 1e3)
        return f"{value / scale:g}{letter}"
    if value and abs(value) < 1e-3 and (decimals is None or decimals > 4):
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if decimals is None:
        return f"{value:g}"
    return f"{value:,.{decimals}f}"


_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def _path(points: Iterable[tuple[float, float]], plot: _Plot) -> str:
    """The data of a <path> through `points`, broken where y is not finite."""
    out, pen = [], "M"
    for x, y in points:
        if math.isfinite(y):
            out.append(f"{pen}{plot.x_of(x):.1f} {plot.y_of(y):.1f}")
        pen = "L" if math.isfinite(y) else "M"
    return "".join(out)


def _notes(series: Sequence[Series], drawn: list[float], plot: _Plot) -> str:
    """What the lines cannot show: steps whose value is not finite, and a peak above the chart."""
    bad = [x for s in series for x in np.asarray(s.x)[~np.isfinite(s.y)].tolist()]
    if bad:
        pixels = sorted({round(plot.x_of(x)) for x in bad})
        marks = "".join(f"M{x} {plot.bottom}v-8" for x in pixels)
        text = f"not finite at {len(bad):,} steps, first at {min(bad):,.0f}"
        return f'<path class="nonfinite" d="{marks}"/>{_text(plot.right, 13, "warning end", text)}'
    if drawn and max(drawn) > plot.high:
        text = f"peak {plot.number(max(drawn))}, off the chart"
        return _text(plot.right, 13, "note end", text)
    return ""


def _columns(series: Sequence[Series], means: Sequence[Sequence[float]], plot: _Plot) -> str:
    """Invisible columns; the one under the pointer shows its rule and the values of all series."""
    xs = max((s.x for s in series), key=len)
    count = min(_COLUMNS, len(xs))
    steps = [xs[round(i * (len(xs) - 1) / max(1, count - 1))] for i in range(count)]
    middles = [(plot.x_of(a) + plot.x_of(b)) / 2 for a, b in pairwise(steps)]
    edges = [_LEFT, *middles, plot.right]
    out = []
    for step, (left, right) in zip(steps, pairwise(edges), strict=True):
        values = [f"step {step:,.0f}"]
        for s, mean in zip(series, means, strict=True):
            if at := bisect_right(s.x, step):
                values.append(f"{s.label} {plot.number(mean[at - 1])}")
        out.append(
            f'<g class="column"><path class="hit" d="M{left:.1f} {_TOP}H{right:.1f}V{plot.bottom}'
            f'H{left:.1f}"/><path class="rule" d="M{plot.x_of(step):.1f} {_TOP}V{plot.bottom}"/>'
            f"{_text(plot.right, 13, 'value end', '   '.join(values))}</g>"
        )
    return "".join(out)


def _text(x: float, y: float, css: str, text: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
