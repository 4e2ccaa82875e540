import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.store import TokenStore
from data.stream import Stream

Build = Callable[..., TokenStore]
GOLDEN = "8e495f1a12ea80698d15b321823a248f1dab38a8b27bc9600ea7f2c67a3f8958"
TEXTS = [f"document {i} " * (i % 9 + 1) for i in range(40)]
SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@given(st.integers(20, 900), st.integers(1, 90), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
@SETTINGS
def test_every_epoch_visits_every_bin_once(
    build_store: Build, sequence_length: int, batch_size: int, seed: int, first: int
) -> None:
    stream = Stream(build_store(TEXTS), sequence_length, batch_size, seed)
    n = stream.n_bins
    steps = range(first, first + 2 + 2 * n // batch_size)
    bins = np.concatenate([stream.bins(step) for step in steps])
    epoch_starts = -first * batch_size % n
    bins = bins[epoch_starts : epoch_starts + n]
    assert np.array_equal(np.sort(bins), np.arange(n))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_together_make_the_batch(build_store: Build, processes: int) -> None:
    stream = Stream(build_store(TEXTS), 32, 8, seed=3)
    share = 8 // processes
    for step in (0, 1, 17, 10**12):
        parts = [
            Stream(build_store(TEXTS), 32, 8, seed=3).batch(step, slice(p * share, (p + 1) * share))
            for p in range(processes)
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        assert equal(joined, stream.batch(step))
    assert stream.batch(0, slice(3, 3))["tokens"].shape == (0, 32)


def test_epochs_and_seeds_have_orders_of_their_own(build_store: Build) -> None:
    store = build_store(TEXTS)
    n = Stream(store, 8, 1, 0).n_bins
    orders = {
        tuple(Stream(store, 8, n, seed).bins(epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4 and tuple(range(n)) not in orders


def test_the_batch_size_does_not_change_the_order(build_store: Build) -> None:
    store = build_store(TEXTS)
    small, large = Stream(store, 16, 3, 5), Stream(store, 16, 12, 5)
    parts = [small.batch(step)["tokens"] for step in range(4, 8)]
    assert np.array_equal(np.concatenate(parts), large.batch(1)["tokens"])


def test_golden_batch(build_store: Build) -> None:
    """What a run has seen may never change without a new PACKING_VERSION or STORE_VERSION."""
    batch = Stream(build_store(TEXTS), 32, 8, seed=11).batch(123)
    content = hashlib.sha256()
    for name in sorted(batch):
        content.update(name.encode() + batch[name].tobytes())
    assert content.hexdigest() == GOLDEN


def test_a_corpus_smaller_than_a_row_fills_every_row(build_store: Build) -> None:
    stream = Stream(build_store(["tiny"]), 64, 4, seed=0)
    batch = stream.batch(9)
    assert stream.n_bins == 1 and stream.epochs(10) == 40
    assert batch["weights"].sum(axis=1).tolist() == [5, 5, 5, 5]
    assert np.array_equal(batch["tokens"], np.repeat(batch["tokens"][:1], 4, axis=0))


def test_threads_may_share_it(build_store: Build) -> None:
    stream = Stream(build_store(TEXTS), 32, 8, seed=1)
    expected = [stream.batch(step) for step in range(60)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(stream.batch, range(60)))
    assert all(equal(a, b) for a, b in zip(expected, got, strict=True))


def test_the_fingerprint_names_everything_that_matters(build_store: Build) -> None:
    store = build_store(TEXTS)
    streams = [
        Stream(store, 32, 8, 1),
        Stream(store, 33, 8, 1),
        Stream(store, 32, 9, 1),
        Stream(store, 32, 8, 2),
        Stream(build_store(TEXTS[1:]), 32, 8, 1),
    ]
    assert len({stream.fingerprint for stream in streams}) == 5
    assert Stream(TokenStore(store.path), 32, 8, 1).fingerprint == streams[0].fingerprint


def test_impossible_streams_are_refused(build_store: Build) -> None:
    store = build_store(["x"])
    for arguments in ((1, 8, 0), (8, 0, 0), (8, 8, -1), (8, 8, 2**63)):
        with pytest.raises(ValueError, match="cannot stream"):
            Stream(store, *arguments)
    with pytest.raises(ValueError, match="no step -1"):
        Stream(store, 8, 8, 0).batch(-1)
