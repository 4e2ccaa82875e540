"""The data of a run in numbers, as lines of text."""

from collections.abc import Iterator

import numpy as np

from data.config import DataConfig
from data.preparation import Prepared
from data.store import TokenStore
from data.stream import Stream

_BAR = 40  # characters of the longest one


def lines(config: DataConfig, steps: int, data: Prepared, stream: Stream) -> Iterator[str]:
    """Lengths of documents, padding, counts against weights, epochs at the end of the run."""
    for corpus in data.corpora:
        yield f"{corpus.name}: {corpus.dataset}"
        yield from _lengths(corpus.train)
        yield (
            f"  {config.packing} into {corpus.plan.n_bins:,} bins of {corpus.plan.length} tokens: "
            f"{100 * corpus.plan.waste:.3f}% padding"
        )
        counts = corpus.train.manifest["counts"]
        yield "  " + ", ".join(f"{name}: {count:,}" for name, count in counts.items())
        yield ""
    yield f"{'corpus':16} {'rows':>12} {'of all rows':>12} {'weight':>12} {'epochs':>8}"
    counts, total = stream.counts(steps), stream.rows(steps)
    weights = sum(corpus.weight for corpus in data.corpora)
    for name, epochs in stream.epochs(steps).items():
        weight = next(c.weight for c in data.corpora if c.name == name) / weights
        yield (
            f"{name:16} {counts[name]:12,} {counts[name] / max(total, 1):12.4%} {weight:12.4%} "
            f"{epochs:8.3f}"
        )
    if config.rates.temperature:
        cap = f" of at most {config.rates.cap:,}" if config.rates.cap else ""
        yield (
            f"weights are rates of examples{cap}, to the power 1 / {config.rates.temperature:g}, "
            "times the rows that an example takes"
        )
    changes = [stage for stage in stream.stages if 0 < stage.after_step < steps]
    if changes:
        yield f"weights are those of the beginning; {len(changes)} stages follow:"
    for stage in changes:
        shares = ", ".join(
            f"{corpus.name} {share / stage.mixture.period:.4%}"
            for corpus, share in zip(stream.corpora, stage.mixture.shares, strict=True)
        )
        yield f"  after step {stage.after_step}: {stage.rows} x {stage.length} tokens; {shares}"


def _lengths(store: TokenStore) -> Iterator[str]:
    """A histogram: every class of lengths is twice as wide as the one before."""
    lengths = np.diff(store.token_offsets)
    classes = np.bincount(np.frexp(lengths)[1] - 1).tolist()  # 2^k <= length < 2^(k + 1)
    yield (
        f"  {lengths.size:,} documents, {store.n_tokens:,} tokens; a document has "
        f"{lengths.min():,} to {lengths.max():,}, half of them at most {int(np.median(lengths)):,}"
    )
    if store.is_examples:
        kind = f"; every {store.unit} of them are a pair" if store.unit > 1 else ""
        yield (
            f"  {store.manifest['task']}: {store.n_learned:,} tokens learned, "
            f"{store.n_learned / store.n_documents:.1f} of a document{kind}"
        )
    for k, count in enumerate(classes):
        if k >= (np.frexp(lengths.min())[1] - 1):
            bar = "#" * round(_BAR * count / max(classes))
            yield f"  {1 << k:>11,} tokens or more {count:>11,} {bar}"
