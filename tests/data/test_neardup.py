import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import neardup

WORDS = st.lists(st.sampled_from("abcd"), max_size=30).map(" ".join)


def jaccard(a: str, b: str) -> float:
    """The definition, over sets of tuples of words."""

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        words += [""] * (neardup.SHINGLE - len(words))
        return {tuple(words[i : i + neardup.SHINGLE]) for i in range(len(words) - 4)}

    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@given(st.lists(WORDS, max_size=12), st.sampled_from([0.2, 0.5, 1.0]))
@settings(max_examples=100, deadline=None)
def test_clusters_are_the_connected_components(texts: list[str], threshold: float) -> None:
    expected: list[set[int]] = []
    for i, text in enumerate(texts):
        near = [c for c in expected if any(jaccard(text, texts[j]) >= threshold for j in c)]
        expected = [c for c in expected if c not in near] + [{i}.union(*near)]
    found = neardup.clusters(texts, threshold)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert found == sorted(found) and all(c == sorted(c) for c in found)


def test_spacing_does_not_hide_a_copy() -> None:
    text = "def f(x):\n    return x + 1, x - 1, x * 2\n"
    assert neardup.clusters([text, text.replace("    ", "\t"), "import os, sys, re, io"]) == [
        [0, 1],
        [2],
    ]


def dense_clusters(texts: list[str], threshold: float) -> list[tuple[int, ...]]:
    """The formula over the whole matrix of pairs, and its connected components."""
    sets = [neardup.shingles(text) for text in texts]
    known = np.unique(np.concatenate(sets)) if sets else np.zeros(0, np.uint64)
    has = np.array([np.isin(known, s) for s in sets], np.int64).reshape(len(texts), known.size)
    common = has @ has.T
    sizes = has.sum(1)
    near = (common > 0) & (common >= threshold * (sizes[:, None] + sizes[None, :] - common))
    for _ in texts:
        near = near | (near @ near)
    return sorted({tuple(np.flatnonzero(row).tolist()) for row in near})


@given(st.lists(WORDS, max_size=12), st.sampled_from([0.0, 0.1, 0.3, 1.0]), st.sampled_from([1, 7]))
@settings(max_examples=150, deadline=None)
def test_counting_in_pieces_changes_nothing(
    texts: list[str], threshold: float, partners: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neardup, "_PARTNERS", partners)
        found = neardup.clusters(texts, threshold)
    assert [tuple(c) for c in found] == dense_clusters(texts, threshold)


def test_memory_does_not_grow_with_the_square_of_the_texts() -> None:
    licence = "do what you want with this text as long as you keep these words "
    texts = [licence + f"text {i} " * 3 for i in range(3000)]
    tracemalloc.start()
    found = neardup.clusters(texts, threshold=1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 3000
    assert peak < 30e6  # the matrix of pairs alone would be 36 MB of int32
