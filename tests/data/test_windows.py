import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.rows import Batch
from data.store import TokenStore
from data.tokenizer import ByteTokenizer
from data.windows import Windows

Build = Callable[..., TokenStore]
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=10)


def batches(windows: Windows) -> Batch:
    """All rows of all batches."""
    parts = [windows.batch(i) for i in range(windows.n_batches)]
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


class CharacterTokenizer(ByteTokenizer):
    """One id a character, so that a text of distinct characters tells every token's place."""

    vocab_size = 0x6002
    bos_id = 0x6000
    eos_id = 0x6001

    def __init__(self) -> None:
        sizes = [len(chr(i).encode()) for i in range(0x6000)]
        self.token_bytes = np.array([*sizes, 0, 0], np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([ord(c) for c in text], np.uint32) for text in texts]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10), st.data())
@SETTINGS
def test_every_token_is_scored_once_with_enough_context(
    build_store: Build, lengths: list[int], data: st.DataObject
) -> None:
    T = data.draw(st.integers(2, 30))
    stride = data.draw(st.integers(1, T))
    characters = map(chr, range(0x700, 0x1000))  # two or three bytes each
    texts = ["".join(itertools.islice(characters, n)) for n in lengths]
    store = build_store(texts, CharacterTokenizer())
    windows = Windows(store, T, data.draw(st.integers(1, 5)), stride)
    rows = batches(windows)
    flat, starts = store.read(0, store.n_tokens).tolist(), store.token_offsets.tolist()
    scored = []
    for row in range(len(rows["tokens"])):
        segments = rows["segments"][row]
        used = int((segments > 0).sum())
        assert segments.tolist() == sorted(segments[:used].tolist()) + [0] * (T - used)
        for segment in range(1, segments.max() + 1):
            here = np.flatnonzero(segments == segment)
            length = here.size
            assert rows["positions"][row, here].tolist() == list(range(length))
            first_target = rows["targets"][row, here[0]]
            if first_target == store.eos_id:  # the window holds one input: the last character
                place = flat.index(rows["tokens"][row, here[0]])
            else:
                place = flat.index(first_target) - 1
            assert rows["tokens"][row, here].tolist() == flat[place : place + length]
            assert rows["targets"][row, here].tolist() == flat[place + 1 : place + length + 1]
            start = max(s for s in starts if s <= place)
            assert (place - start) % stride == 0
            for t in np.flatnonzero(rows["weights"][row, here]).tolist():
                scored.append(place + t + 1)
                assert t >= T - stride or place == start
                assert rows["bytes"][row, here[t]] == store.token_bytes[flat[place + t + 1]]
    assert sorted(scored) == sorted(set(range(store.n_tokens)) - set(starts))
    assert rows["weights"].sum() == windows.n_tokens == store.n_tokens - store.n_documents
    assert rows["bytes"].sum() == windows.n_bytes == store.n_bytes
    assert not rows["weights"][rows["segments"] == 0].any()
    assert not rows["bytes"][rows["weights"] == 0].any()


@given(LENGTHS, st.integers(2, 20), st.integers(1, 200))
@SETTINGS
def test_a_budget_is_kept_in_whole_windows(
    build_store: Build, lengths: list[int], T: int, max_tokens: int
) -> None:
    store = build_store([chr(97 + i) * n for i, n in enumerate(lengths)])
    whole = Windows(store, T, 2)
    part = Windows(store, T, 3, max_tokens=max_tokens)
    first = Windows(store, T, 1, max_tokens=1)
    rows = batches(part)
    assert rows["weights"].sum() == part.n_tokens and rows["bytes"].sum() == part.n_bytes
    assert first.n_tokens <= part.n_tokens <= max(max_tokens, first.n_tokens)
    assert part.n_tokens > max_tokens - T or part.n_tokens == whole.n_tokens
    assert Windows(store, T, 2, max_tokens=whole.n_tokens).n_tokens == whole.n_tokens
    # Its rows are the first of the whole, the last of them perhaps with less in it: what was said
    # of the whole split is said of them (evaluation/asking.py).
    all_rows = batches(whole)
    for row, segments in enumerate(rows["segments"]):
        for name in ("tokens", "targets", "positions", "segments") if segments.any() else ():
            there = segments > 0
            assert np.array_equal(rows[name][row, there], all_rows[name][row, there])


@given(LENGTHS, st.integers(1, 9), st.sampled_from([None, 50]))
@SETTINGS
def test_rows_do_not_depend_on_the_batch_size(
    build_store: Build, lengths: list[int], batch_size: int, max_tokens: int | None
) -> None:
    store = build_store([chr(97 + i) * n for i, n in enumerate(lengths)])
    one = batches(Windows(store, 16, 1, max_tokens=max_tokens))
    windows = Windows(store, 16, batch_size, max_tokens=max_tokens)
    many = batches(windows)
    n = len(one["tokens"])
    for name in one:
        assert np.array_equal(one[name], many[name][:n])
        assert not many[name][n:].any()
    index = windows.n_batches - 1
    low = batch_size // 2
    for name, part in windows.batch(index, slice(low, batch_size)).items():
        assert np.array_equal(part, windows.batch(index)[name][low:])


def test_short_documents_share_rows(build_store: Build) -> None:
    windows = Windows(build_store(["abc"] * 40), 16, 4)
    assert windows.n_batches == 3  # 4 targets each: 4 documents a row, 10 rows, 4 rows a batch
    assert windows.batch(0)["segments"][0].tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"sequence_length": 1},
        {"batch_size": 0},
        {"stride": 17},
        {"stride": 0},
        {"max_tokens": 0},
    ],
)
def test_impossible_windows_are_refused(build_store: Build, arguments: dict[str, Any]) -> None:
    store = build_store(["x"])
    with pytest.raises(ValueError, match=r"^cannot (evaluate|score)"):
        Windows(store, **({"sequence_length": 16, "batch_size": 1} | arguments))
    with pytest.raises(ValueError, match="there is no batch 1"):
        Windows(store, 16, 1).batch(1)
