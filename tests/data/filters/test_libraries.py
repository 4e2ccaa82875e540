"""Languages, personal data, near duplicates: what the libraries find, and that they are needed."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import filters
from data.documents import Document
from data.filters import duplicates, overlap
from data.filters.config import MASKS, FilterConfig
from data.filters.language import Language
from data.filters.personal import Personal
from errors import UserError

ENGLISH = "It is a truth universally acknowledged, that a single man must be in want of a wife. "
GERMAN = "Es ist eine allgemein anerkannte Wahrheit, dass ein Junggeselle eine Frau sucht. "


def test_other_languages_go() -> None:
    counts: Counter[str] = Counter()
    one = Language(("en",), 0.8)
    document = Document("d", ENGLISH * 3)
    assert one(document, counts) is document
    assert one(Document("d", GERMAN * 3), counts) is None
    assert counts == {"dropped: language": 1}
    assert Language(("en", "de"), 0.8)(Document("d", GERMAN * 3), counts) is not None
    assert Language(("en",), 1.0)(Document("d", "on a in"), counts) is None
    with pytest.raises(UserError, match=r"^config.data.filters.languages has 'english', which py3"):
        Language(("english",), 0.8)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("email", "jane.doe@example.com"),
        ("phone", "+1 212-555-0123"),
        ("card", "4111 1111 1111 1111"),
        ("ip", "192.168.0.17"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
    ],
)
def test_personal_data_becomes_a_mark(kind: str, data: str) -> None:
    counts: Counter[str] = Counter()
    text = f"One is {data}, two are {data} and more."
    found = Personal((kind,))(Document("d", text), counts)
    mark = f"<{kind.upper()}>"
    assert found is not None and found.text == f"One is {mark}, two are {mark} and more."
    assert counts == {f"masked: {kind}": 2}
    others = tuple(other for other in MASKS if other not in (kind, "phone"))
    left = Personal(others)(Document("d", text), counts)
    assert left is not None and left.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Version 3.11.7 of 2023-12-04 costs 1,234.56.",
        "4111 1111 1111 1112 fails the check sum",
        "DE89 3704 0044 0532 0130 01 does too",
        "a@b is no address",
        ENGLISH,
    ],
)
def test_other_text_stays(text: str) -> None:
    document = Document("d", text)
    assert Personal(("card", "email", "iban", "ip"))(document, Counter()) is document


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """By the definition."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


TEXTS = st.lists(st.sampled_from(["a", "b", "C", "d.", "e,", "-", "\n"]), max_size=25).map(" ".join)


@settings(deadline=None)
@given(evaluated=st.lists(TEXTS, max_size=4), text=TEXTS, n=st.integers(1, 5))
def test_an_n_gram_in_common_makes_a_document_go(
    tmp_path_factory: pytest.TempPathFactory, evaluated: list[str], text: str, n: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "ngrams.npy"
    overlap.save(evaluated, n, path)
    known = set().union(*(ngrams(one, n) for one in evaluated))
    counts: Counter[str] = Counter()
    left = overlap.Overlap(path, n)(Document("d", text), counts)
    assert (left is None) == bool(known & ngrams(text, n)) == bool(counts)
    assert len(np.load(path)) == len(known)


def copies(kind: filters.Duplicates, texts: list[str], cuts: int = 3) -> list[bool]:
    """What `find` says of texts, in parts."""
    rows = [np.frombuffer(kind.signature(text), np.uint8) for text in texts]
    table = np.array(rows, np.uint8).reshape(len(texts), kind.width)
    return np.concatenate([*kind.find(np.array_split(table, cuts)), [False]])[:-1].tolist()


@given(texts=st.lists(st.sampled_from(["a", "b", "c", "d e", "d  e"]), max_size=12))
def test_exact_duplicates(texts: list[str]) -> None:
    assert copies(duplicates.Exact(), texts) == [text in texts[:i] for i, text in enumerate(texts)]


def test_a_long_text_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"w{i}" for i in range(100))
    whole = [*overlap.ngrams(text, 13)], duplicates.Near(0.8).signature(text)
    monkeypatch.setattr(overlap, "_WORDS", 9)
    monkeypatch.setattr(duplicates, "_WORDS", 7)
    assert len(whole[0]) == 1 < len([*overlap.ngrams(text, 3)])
    assert np.array_equal(np.concatenate([*overlap.ngrams(text, 5)]), by_hand(text, 5))
    assert duplicates.Near(0.8).signature(text) == whole[1]


def by_hand(text: str, n: int) -> np.ndarray:
    """The hashes of windows, each asked for by itself."""
    words = text.split()
    some = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return np.concatenate([part for one in some for part in overlap.ngrams(one, n)])


def test_a_leak_is_found_though_it_is_masked_too(tmp_path: Path) -> None:
    leak = " ".join(f"word{i}" for i in range(8)) + " mail jane@example.com or bob@example.org now"
    overlap.save([leak], 13, tmp_path / "n.npy")
    both = filters.make(FilterConfig(mask=("email",), decontaminate=13), tmp_path / "n.npy")
    left: Document | None = Document("d", f"before {leak} after")
    for one in both:
        left = one(left, Counter()) if left is not None else None
    assert left is None


@pytest.mark.parametrize(
    "text", ["call 10.0.0.1 212-555-0123 now", "it is 2125550123@example.org here"]
)
def test_nothing_shows_of_data_that_overlaps(text: str) -> None:
    found = Personal(MASKS)(Document("d", text), Counter())
    assert found is not None
    assert not any(part in found.text for part in ("0123", "10.0", "555"))


def jaccard(a: str, b: str) -> float:
    x, y = ngrams(a, 5), ngrams(b, 5)
    return len(x & y) / len(x | y)


def test_near_duplicates_are_those_of_a_high_jaccard_similarity() -> None:
    """An estimate from 128 hashes is off by under 0.16 (four standard deviations)."""
    rng = np.random.default_rng(0)
    kind = duplicates.Near(0.7)
    pairs = {True: 0, False: 0}
    for rate in np.linspace(0, 0.1, 60):
        words = [f"w{i}" for i in rng.integers(0, 10**6, 150)]
        other = [word if rng.random() > rate else f"x{i}" for i, word in enumerate(words)]
        a, b = " ".join(words), " ".join(other)
        (first, found), similarity = copies(kind, [a, b]), jaccard(a, b)
        assert not first
        if abs(similarity - 0.7) > 0.16:
            assert found == (similarity > 0.7)
            pairs[found] += 1
    assert min(pairs.values()) > 5


def test_of_near_duplicates_the_first_stays() -> None:
    text = " ".join(f"word{i}" for i in range(100))
    texts = [text, "something else", f"{text} more", "something else", text]
    assert copies(duplicates.Near(0.8), texts) == [False, False, True, True, True]


def test_signatures_are_the_same_everywhere() -> None:
    """They are compared over processes and resumed builds."""
    assert duplicates.Exact().signature("one two").hex() == "7689d1ceb0c156d213d3370ce8c62d22"
    assert (
        duplicates.Near(0.8).signature("one two three four five six").hex()[:32]
        == "1c46b03a21cfb431d9f7934542e73247"
    )


@pytest.mark.parametrize(
    ("package", "module", "values"),
    [
        ("py3langid", "py3langid.langid", {"languages": ("en",)}),
        (
            "presidio-analyzer",
            "presidio_analyzer.predefined_recognizers",
            {"mask": ("email",)},
        ),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, module: str, values: dict[str, tuple[str, ...]]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        UserError, match=rf"needs the package {package}, .*: `make setup FILTERS=1`\Z"
    ):
        filters.make(FilterConfig(**values), None)  # type: ignore[arg-type]


def test_a_missing_package_for_duplicates_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(
        UserError, match=r"near_duplicates needs the package datasketch, .*`make setup FILT"
    ):
        filters.make_duplicates(FilterConfig(near_duplicates=0.8))


def test_the_identity_tells_what_is_done() -> None:
    names = [
        filters.identity(config)
        for config in (
            FilterConfig(),
            FilterConfig(c4=True),
            FilterConfig(gopher=True),
            FilterConfig(languages=("en",)),
            FilterConfig(languages=("en",), language_probability=0.5),
        )
    ]
    assert names[0] == "" and len(set(names)) == 5


def test_a_long_text_is_masked_in_parts() -> None:
    masking = Personal(("email",))
    line = "write to jane.doe@example.com about it\n"
    counts: Counter[str] = Counter()
    masked = masking(Document("long", line * 10_000), counts)
    assert masked is not None and masked.text == "write to <EMAIL> about it\n" * 10_000
    assert counts == {"masked: email": 10_000}
    plain = Document("plain", "nothing here\n" * 20_000)
    assert masking(plain, counts) is plain
