"""How fast data is prepared, and how fast batches are made of it.

    python -m bench data
    python -m bench data --source="files:$PODIUM_ASSETS/books/*.jsonl.gz" \\
      --split="train-*.jsonl.gz" --tokenizer=$PODIUM_ASSETS/gpt2

Preparing is timed beside what the tokenizer alone takes for the same text (`encode_batch_fast` of
`tokenizers`, batches of 1 MB, all cores), in turns. Making batches is timed beside pipelines of
Grain over the same store: windows of its tokens by index, shuffled and batched, which have neither
segments nor positions; and Grain's concatenate-and-split packing, which has.
"""

import functools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import grain
import numpy as np
from absl import app, flags

from bench import results
from bench.short import Short
from data import building, plan, sources
from data import tokenizer as tokenizers
from data.config import Corpus, Packing
from data.documents import NO_SPLIT, Shard
from data.mixture import Mixture
from data.stages import Stage
from data.store import TokenStore
from data.stream import Corpus as Streamed
from data.stream import Stream
from data.tokenizer import Tokenizer

SOURCE = flags.DEFINE_string("source", "python_stdlib", "As config.data.source.")
SPLIT = flags.DEFINE_string("split", "train", "As config.data.train_split.")
TOKENIZER = flags.DEFINE_string("tokenizer", "bpe", "A path, or bpe: one of 4,096 ids is trained.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Preparations of each side.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 5, "Of making batches, each time.", lower_bound=0.1)

_ROWS, _LENGTH = 8, 1024
_BATCH = 1 << 20  # bytes of text
_TURNS = 3


def main(argv: list[str]) -> None:
    del argv
    corpus = Corpus("text", 1.0, SOURCE.value, SPLIT.value, NO_SPLIT, "text", "", "refuse")
    shards = sources.find(SOURCE.value, corpus, lambda *told: None).shards(SPLIT.value)
    result: dict[str, Any] = {"source": SOURCE.value, "batches": {}}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PODIUM_CACHE"] = folder
        tokenizer = _tokenizer(shards)
        store = preparing(Path(folder), shards, tokenizer, result)
        short = building.build(Path(folder) / "short", [Short(s) for s in shards], tokenizer, {})
        batches(store, "documents as they are", result)
        batches(short, "documents of about 400 tokens", result)
    results.write(result)


def _tokenizer(shards: Sequence[Shard]) -> Tokenizer:
    if TOKENIZER.value != "bpe":
        return tokenizers.load(Path(TOKENIZER.value))
    texts = (document.text for shard in shards for document, _ in shard.documents())
    return tokenizers.train_bpe(texts, 4096)


def preparing(
    folder: Path, shards: Sequence[Shard], tokenizer: Tokenizer, result: dict[str, Any]
) -> TokenStore:
    """Times the whole way to a store, and the tokenizer alone, in turns."""
    texts = [document.text for shard in shards for document, _ in shard.documents()]
    n_bytes = sum(len(text.encode()) for text in texts)
    alone, whole = [], []
    store = None
    for turn in range(ROUNDS.value):
        began = time.perf_counter()
        for batch in _batches_of(texts):
            tokenizer.encode_batch(batch)
        alone.append(time.perf_counter() - began)
        began = time.perf_counter()
        with _Memory() as memory:
            store = building.build(folder / f"store{turn}", shards, tokenizer, {})
        whole.append(time.perf_counter() - began)
    assert store is not None
    ratios = [a / b for a, b in zip(whole, alone, strict=True)]
    print(
        f"preparing {n_bytes / 1e6:.0f} MB of text, {store.n_tokens / 1e6:.1f} M tokens: "
        f"{statistics.median(whole):.1f} s; the tokenizer alone {statistics.median(alone):.1f} s: "
        f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f}); peak memory "
        f"of the processes beside this one {memory.peak / 1e6:.0f} MB"
    )
    result["preparing"] = {
        "text_bytes": n_bytes,
        "tokens": store.n_tokens,
        "s": whole,
        "tokenizer_s": alone,
        "peak_bytes": memory.peak,
    }
    return store


def _batches_of(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Memory:
    """Watches the summed resident memory of this process's children (Linux alone)."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Memory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._stop.wait(0.1):
            total = 0
            for stat in Path("/proc").glob("[0-9]*/stat"):
                try:
                    fields = stat.read_text().rpartition(")")[2].split()
                except OSError:  # it has ended
                    continue
                if int(fields[1]) == os.getpid():
                    total += int(fields[21]) * page
            self.peak = max(self.peak, total)


class _Windows:
    """Every window of a store's tokens, by index: what Grain reads."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return (self._store.n_tokens - 1) // _LENGTH

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        tokens = self._store.read(index * _LENGTH, (index + 1) * _LENGTH + 1).astype(np.int32)
        return {"tokens": tokens[:-1], "targets": tokens[1:]}


class _Documents:
    """Every document of a store."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    def __len__(self) -> int:
        return self._store.n_documents

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        first, last = self._store.token_offsets[index : index + 2].tolist()
        tokens = self._store.read(first, last).astype(np.int32)
        return {"tokens": tokens[:-1], "targets": tokens[1:]}


def batches(store: TokenStore, title: str, result: dict[str, Any]) -> None:
    """Tokens a second that each way makes batches of, in turns."""
    sides: dict[str, Callable[[], Iterator[object]]] = {}
    for packing in get_args(Packing):
        made = plan.make(store, _LENGTH, packing)
        stage = Stage(0, _LENGTH, _ROWS, Mixture([1.0]))
        stream = Stream([Streamed("text", store, made)], [stage], 0, {})
        sides[f"podium, {packing} ({made.waste:.3%} padding)"] = functools.partial(_steps, stream)
    windows = grain.MapDataset.source(_Windows(store)).shuffle(seed=0).repeat().batch(_ROWS)
    sides["grain, windows of a MapDataset"] = lambda: map(windows.__getitem__, range(sys.maxsize))
    lengths = {"tokens": _LENGTH, "targets": _LENGTH}
    documents = (
        grain.MapDataset.source(_Documents(store)).shuffle(seed=0).repeat().to_iter_dataset()
    )
    packed = grain.experimental.ConcatThenSplitIterDataset(documents, length_struct=lengths)
    sides["grain, concatenate and split"] = lambda: iter(packed.batch(_ROWS))
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(_TURNS):
        for name, make in sides.items():
            rates[name].append(_rate(make()))
    print(
        f"{title}: {store.n_documents:,}, of {store.n_tokens / store.n_documents:,.0f} tokens each"
    )
    for name, found in rates.items():
        print(f"  {statistics.median(found) / 1e6:8.1f} M tokens/s  {name}")
    result["batches"][title] = {name: statistics.median(found) for name, found in rates.items()}


def _steps(stream: Stream) -> Iterator[object]:
    step = 0
    while True:
        yield stream.batch(step)
        step += 1


def _rate(batches: Iterator[object]) -> float:
    """Tokens a second, of one process; the first batches are not counted."""
    for _ in range(10):
        next(batches)
    began, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < SECONDS.value / _TURNS:
        next(batches)
        count += 1
    return count * _ROWS * _LENGTH / spent


if __name__ == "__main__":
    app.run(main)
