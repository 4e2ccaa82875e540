"""Each rule at its bound, on documents made for it."""

from collections import Counter

import pytest

from data.documents import Document
from data.filters import c4, gopher, make
from data.filters.config import FilterConfig

SENTENCES = [f"The number {i} is followed by another one." for i in range(4)]


def cleaned(text: str) -> tuple[str | None, dict[str, int]]:
    counts: Counter[str] = Counter()
    left = c4.C4()(Document("d", text), counts)
    return None if left is None else left.text, {name: n for name, n in counts.items() if n}


def test_c4_keeps_lines_that_are_sentences() -> None:
    dropped = [
        "A line without an end",
        "Too short a line.",
        "Please enable JavaScript to see this page.",
        "We make use of cookies on this page.",
        "This one trails off at its end...",
    ]
    text = "\n".join([*SENTENCES, *dropped, '  She said "it is one that stays."  '])
    left, counts = cleaned(text)
    assert left == "\n".join([*SENTENCES, 'She said "it is one that stays."'])
    assert counts == {"lines dropped: c4": 5}


def test_c4_wants_three_sentences() -> None:
    assert cleaned("\n".join(SENTENCES[:3]))[0] == "\n".join(SENTENCES[:3])
    assert cleaned("\n".join(SENTENCES[:2])) == (None, {"dropped: c4, fewer than 3 sentences": 1})
    assert cleaned(" ".join(SENTENCES[:3]))[0] is not None  # in one line
    assert cleaned("") == (None, {"dropped: c4, fewer than 3 sentences": 1})


@pytest.mark.parametrize(
    ("more", "reason"), [("Lorem IPSUM", "lorem ipsum"), ("f() { }", "curly bracket")]
)
def test_c4_drops_documents_of_no_text(more: str, reason: str) -> None:
    assert cleaned("\n".join([*SENTENCES, more])) == (None, {f"dropped: c4, {reason}": 1})


# 60 different words, with stop words among them.
WORDS = ["the", "with", *(f"{a}{b}rd" for a in "bcdfghjk" for b in "aeiou"), *"of to and".split()]
GOOD = " ".join([*WORDS, *(f"num{a}x" for a in "abcdefghijklmno")])


def broken(text: str) -> list[str]:
    return list(gopher.broken(text))


def test_gopher_keeps_plain_text() -> None:
    assert broken(GOOD) == []


@pytest.mark.parametrize(
    ("within", "beyond", "rule"),
    [
        (" ".join(GOOD.split()[:50]), " ".join(GOOD.split()[:49]), "words outside 50 to 100,000"),
        (GOOD + " # # # # # #", GOOD + " #" * 7, "more than one # in ten words"),
        (GOOD + " ..." * 6, GOOD + " ..." * 8, "more than one ellipsis in ten words"),
        (
            "\n".join(["line of words"] + [f"- {w}" for w in GOOD.split()[:9]]) + f"\n{GOOD}",
            "\n".join(f"- {w}" for w in GOOD.split()),
            "bullets in over 90% of lines",
        ),
        (GOOD + " 1" * 15, GOOD + " 1" * 16, "letters in under 80% of words"),
        (
            GOOD.replace("with", "wxth").replace(" of", " xf").replace(" to", " tx"),
            GOOD.replace("with", "wxth")
            .replace(" of", " xf")
            .replace(" to", " tx")
            .replace(" and", " xnd"),
            "fewer than two stop words",
        ),
    ],
)
def test_gopher_quality_at_its_bounds(within: str, beyond: str, rule: str) -> None:
    assert rule not in broken(within)
    assert rule in broken(beyond)


def test_gopher_word_length() -> None:
    rule = "mean word length outside 3 to 10"
    assert rule in broken("ab " * 60) and rule not in broken("abc " * 60)
    assert rule in broken("abcdefghijk " * 60) and rule not in broken("abcdefghij " * 60)


def test_gopher_ellipses() -> None:
    words = GOOD.split()
    lines = [" ".join(words[i : i + 6]) for i in range(0, 60, 6)]
    rule = "ellipses at the end of over 30% of lines"
    assert rule not in broken("\n".join([f"{line}..." for line in lines[:3]] + lines[3:]))
    assert rule in broken("\n".join([f"{line}\u2026" for line in lines[:4]] + lines[4:]))


def test_gopher_repeated_lines_and_paragraphs() -> None:
    lines = GOOD.split()
    again = [lines[0]] * 26
    assert "over 30% of lines repeated" in broken("\n".join([*lines, *again, lines[0]]))
    assert "over 30% of lines repeated" not in broken("\n".join([*lines, *again[:20]]))
    paragraphs = [GOOD, "one more paragraph", "one more paragraph"]
    assert "over 30% of paragraphs repeated" in broken("\n\n".join(paragraphs))
    assert "over 20% of characters in repeated paragraphs" in broken(f"{GOOD}\n\n{GOOD}")
    assert "over 20% of characters in repeated lines" in broken(f"{GOOD}\n{GOOD}")


@pytest.mark.parametrize("n", [2, 3, 4])
def test_gopher_commonest_n_gram_by_its_formula(n: int) -> None:
    gram = " ".join(WORDS[5 : 5 + n])
    share = {2: 0.20, 3: 0.18, 4: 0.16}[n]
    rule = f"the commonest {n}-gram over {share:.0%} of characters"
    seen = []
    for times in range(1, 30):
        text = GOOD + "".join(
            f" {gram} sep{'abcdefghijklmnopqrstuvwxyz'[i % 26]}{i}" for i in range(times)
        )
        characters = sum(map(len, text.split()))
        expected = (times + 1) * len(gram.replace(" ", "")) > share * characters
        assert (rule in broken(text)) == expected
        seen.append(expected)
    assert set(seen) == {True, False}


@pytest.mark.parametrize("n", [5, 10])
def test_gopher_repeated_n_grams_by_their_formula(n: int) -> None:
    share = {5: 0.15, 10: 0.10}[n]
    rule = f"repeated {n}-grams over {share:.0%} of characters"
    words = GOOD.split()
    seen = []
    for length in range(n - 1, 40):
        text = [*words, "zzz", *words[:length]]
        repeated = sum(map(len, words[:length])) if length >= n else 0
        expected = repeated > share * sum(map(len, text))
        assert (rule in broken(" ".join(text))) == expected
        seen.append(expected)
    assert set(seen) == {True, False}


def test_a_document_goes_by_the_first_rule_it_breaks() -> None:
    counts: Counter[str] = Counter()
    assert gopher.Gopher()(Document("d", "too short"), counts) is None
    assert counts == {"dropped: gopher, words outside 50 to 100,000": 1}
    document = Document("d", GOOD)
    assert gopher.Gopher()(document, counts) is document


def test_nothing_is_on_by_default() -> None:
    assert make(FilterConfig(), None) == []


@pytest.mark.parametrize(
    "values",
    [
        {"mask": ("name",)},
        {"near_duplicates": 0.99},
        {"near_duplicates": 0.4},
        {"language_probability": -1.0},
        {"decontaminate": -1},
    ],
)
def test_a_bad_value_is_named(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        FilterConfig(**values)  # type: ignore[arg-type]
