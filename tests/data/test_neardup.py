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
