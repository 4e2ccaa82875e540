"""Stop strings: the text ends before the first, and no part of one is ever shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.stops import Stops

LETTERS = st.text("ab\n", max_size=12)


def cut(text, strings):
    """The definition."""
    return text[: min((at for s in strings if (at := text.find(s)) >= 0), default=len(text))]


@given(st.lists(LETTERS, max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=3))
def test_the_text_ends_before_the_first(pieces, strings):
    stops, shown = Stops(strings), ""
    text = "".join(pieces)
    want = cut(text, strings)
    for piece in pieces:
        shown += stops.add(piece)
        assert want.startswith(shown)  # nothing is taken back
    shown += stops.end()
    assert shown == want
    assert (stops.found is not None) == (want != text)
    if stops.found is not None:
        assert text[len(want) :].startswith(stops.found)
        assert stops.add("more") == stops.end() == ""


@given(LETTERS, st.lists(st.text("ab\n", min_size=1, max_size=5), min_size=1, max_size=3), LETTERS)
def test_nothing_is_shown_that_what_follows_could_make_part_of_a_string(text, strings, later):
    stops = Stops(strings)
    shown = "".join(stops.add(letter) for letter in text)
    assert cut(text + later, strings).startswith(shown)


@given(LETTERS, st.lists(st.text("ab\n", min_size=1, max_size=5), max_size=3))
def test_nothing_is_held_back_without_a_reason(text, strings):
    stops = Stops(strings)
    shown = "".join(stops.add(letter) for letter in text)
    rest = cut(text, strings)[len(shown) :]
    if stops.found is None and rest:
        assert any(s.startswith(text[len(shown) :]) for s in strings) or any(
            s in text[len(shown) :] for s in strings
        )


def test_an_empty_string_is_refused():
    with pytest.raises(ValueError, match="stop=''"):
        Stops(["a", ""])
