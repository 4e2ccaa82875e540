from collections.abc import Callable

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import packing
from data.store import TokenStore

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=12)
# Documents of different letters, so that a token tells which document it is of.
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def texts(lengths: list[int]) -> list[str]:
    return [chr(97 + i) * n for i, n in enumerate(lengths)]


@given(LENGTHS, st.integers(2, 40))
@SETTINGS
def test_rows_by_the_definition(
    build_store: Callable[..., TokenStore], lengths: list[int], sequence_length: int
) -> None:
    """Against a loop over tokens that follows the docstrings word by word."""
    store = build_store(texts(lengths))
    flat, starts = store.tokens.tolist(), set(store.token_offsets[:-1].tolist())
    n_bins = packing.count_bins(store, sequence_length)
    batch = packing.pack(store, np.arange(n_bins), sequence_length)
    predicted = []
    for b in range(n_bins):
        segment, position = 0, 0
        for t in range(sequence_length):
            i = b * sequence_length + t
            if t == 0 or i in starts:
                segment, position = segment + 1, 0
            got = {name: array[b, t].item() for name, array in batch.items()}
            has_target = i + 1 < len(flat) and i + 1 not in starts
            if has_target:
                predicted.append(i + 1)
            assert got == {
                "tokens": flat[i] if i < len(flat) else 0,
                "targets": flat[i + 1] if i + 1 < len(flat) else 0,
                "segments": segment if i < len(flat) else 0,
                "positions": position if i < len(flat) else 0,
                "weights": float(has_target),
                "bytes": int(has_target and flat[i + 1] < 256),
            }
            position += 1
    assert predicted == [i for i in range(len(flat)) if i not in starts]
    assert batch["weights"].sum() == store.n_tokens - store.n_documents
    assert batch["bytes"].sum() == store.n_bytes


def test_shapes_and_types(build_store: Callable[..., TokenStore]) -> None:
    batch = packing.pack(build_store(texts([9, 9])), np.array([1, 0, 1]), 8)
    assert {name: str(array.dtype) for name, array in batch.items()} == {
        "tokens": "int32",
        "targets": "int32",
        "segments": "int32",
        "positions": "int32",
        "weights": "float32",
        "bytes": "int32",
    }
    assert all(a.shape == (3, 8) and a.flags.c_contiguous for a in batch.values())
    assert np.array_equal(batch["tokens"][0], batch["tokens"][2])


def test_a_corpus_smaller_than_a_row(build_store: Callable[..., TokenStore]) -> None:
    store = build_store([""])
    assert packing.count_bins(store, 8) == 1
    batch = packing.pack(store, np.array([0]), 8)
    assert batch["tokens"].tolist() == [[256, 257, 0, 0, 0, 0, 0, 0]]
    assert batch["segments"].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]]
    assert batch["weights"].tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]]
